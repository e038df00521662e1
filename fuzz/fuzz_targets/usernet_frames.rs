//! A guest's frames on the user-mode network: arbitrary bytes, and TCP segments to a listener in this process.
#![no_main]

use std::cell::RefCell;
use std::net::TcpListener;

use libfuzzer_sys::fuzz_target;
use vmm_usernet::{Allow, Resolver, Settings, UserNet};

const LINK: [u8; 12] = [0x52, 0x55, 0x0a, 0, 2, 2, 0x52, 0x54, 0, 0x12, 0x34, 0x56];
const MTU: u16 = 65520;

thread_local! {
    static LISTENER: RefCell<TcpListener> = RefCell::new(TcpListener::bind("127.0.0.1:0").expect("a loopback port"));
}

/// A network on which only the listener's port can be reached, so that nothing leaves this process.
fn open(port: u16) -> UserNet {
    let settings = Settings {
        allow: Allow::parse(&[format!("host:{port}"), "icmp:127.0.0.1".to_owned()]).expect("rules"),
        forwards: Vec::new(),
        resolver: Resolver::At(([127, 0, 0, 1], port).into()),
        mtu: MTU,
        guest_mac: [0x52, 0x54, 0, 0x12, 0x34, 0x56],
        flows: 8,
    };
    UserNet::open(settings).expect("a network without forwards")
}

fn packet(protocol: u8, to: [u8; 4], payload: &[u8]) -> Vec<u8> {
    let len = (20 + payload.len()) as u16;
    let mut header = [0x45, 0, 0, 0, 0, 0, 0, 0, 64, protocol, 0, 0, 10, 0, 2, 15, 0, 0, 0, 0];
    header[2..4].copy_from_slice(&len.to_be_bytes());
    header[16..].copy_from_slice(&to);
    let mut sum: u32 = header.chunks(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]]))).sum();
    sum = (sum & 0xffff) + (sum >> 16);
    sum = (sum & 0xffff) + (sum >> 16);
    header[10..12].copy_from_slice(&(!(sum as u16)).to_be_bytes());
    [&LINK[..], &[8, 0], &header, payload].concat()
}

// Steps of eight bytes, the kind and its parameters, followed by up to 63 bytes of payload.
fuzz_target!(|data: &[u8]| {
    LISTENER.with_borrow(|listener| {
        let port = listener.local_addr().expect("a bound socket").port();
        let mut net = open(port);
        let mut into = vec![0; usize::from(MTU) + 14];
        let (mut theirs, mut ours) = (1000_u32, 0_u32);
        let mut data = data;
        while let Some((&[what, a, b, c, d, flags, options_len, window], rest)) =
            data.split_first_chunk::<8>()
        {
            let (payload, after) = rest.split_at(rest.len().min(usize::from(what >> 2)));
            data = after;
            match what & 3 {
                0 => net.send(&[&LINK[..], payload].concat()),
                1 => net.send(&packet(a, [10, 0, 2, b & 3], payload)),
                _ => {
                    let seq = theirs.wrapping_add_signed(i32::from(a as i8) << (c & 15));
                    let ack = ours.wrapping_add_signed(i32::from(b as i8) << (c >> 4));
                    let options_len = usize::from(options_len % 11) * 4;
                    let mut segment = vec![0x9c, d & 3];
                    segment.extend_from_slice(&port.to_be_bytes());
                    segment.extend_from_slice(&seq.to_be_bytes());
                    segment.extend_from_slice(&ack.to_be_bytes());
                    segment.extend_from_slice(&[
                        ((5 + options_len / 4) << 4) as u8,
                        flags,
                        window,
                        window,
                        0,
                        0,
                        0,
                        0,
                    ]);
                    // The options come from the payload, too, padded with NOPs.
                    segment.extend(payload.iter().copied().chain(std::iter::repeat(1)).take(options_len));
                    let len = if d & 0x80 == 0 { payload.len() } else { usize::from(d) << 8 };
                    segment.resize(segment.len() + len, d);
                    net.send(&packet(6, [10, 0, 2, 2], &segment));
                    if flags & 2 != 0 {
                        theirs = seq.wrapping_add(1);
                    }
                }
            }
            while let Some(frame) = net.receive(&mut into) {
                let frame = &into[..frame.len];
                assert!(frame.len() >= 34, "a frame shorter than its headers");
                // The next sequence number after the last segment to the guest.
                if frame[12..14] == [8, 0] && frame[23] == 6 {
                    let number = u32::from_be_bytes([frame[38], frame[39], frame[40], frame[41]]);
                    ours = number.wrapping_add(u32::from(frame[47] & 2 != 0));
                }
            }
        }
        // Accept and drop the connections that were made.
        listener.set_nonblocking(true).expect("a socket");
        while listener.accept().is_ok() {}
    });
});
