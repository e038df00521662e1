//! Memory cost of idle flows. The only test in its file, so that the process's memory is this test's.

mod guest;

use std::io::{Read, Write};
use std::net::TcpListener;
use std::thread;

use guest::{Guest, frame_of, settings};
use smoltcp::wire::{TcpControl, TcpPacket, TcpRepr, TcpSeqNumber};

const FLOWS: u16 = 200;
/// Bytes that each connection transfers in both directions before it is idle.
const LEN: usize = 100_000;
/// Limit in bytes per flow, which would allow ten thousand. Includes its share of one spare socket's buffers.
const EXPECTED: usize = 8192;

/// The guest's end of a connection. It keeps only sequence numbers, so no stack's memory is measured.
struct End {
    port: u16,
    server: u16,
    next: i32,
    wanted: i32,
}

impl End {
    fn send(&mut self, guest: &mut Guest, control: TcpControl, payload: &[u8]) {
        let is_syn = control == TcpControl::Syn;
        let segment = TcpRepr {
            src_port: self.port,
            dst_port: self.server,
            control,
            seq_number: TcpSeqNumber(self.next),
            ack_number: (!is_syn).then_some(TcpSeqNumber(self.wanted)),
            window_len: u16::MAX,
            window_scale: is_syn.then_some(7),
            max_seg_size: is_syn.then_some(65480),
            sack_permitted: is_syn,
            sack_ranges: [None; 3],
            timestamp: None,
            payload,
        };
        let frame = frame_of([10, 0, 2, 2], &segment);
        self.next += segment.segment_len() as i32;
        guest.net.send(&frame);
    }

    /// Receives the next frame for this end and returns the length of its data. Skips late frames for earlier
    /// ends.
    fn receive(&mut self, guest: &mut Guest) -> usize {
        loop {
            let frame = guest.next_frame();
            let segment = TcpPacket::new_checked(&frame[34..]).unwrap();
            if segment.dst_port() == self.port {
                self.wanted = (segment.seq_number() + segment.segment_len()).0;
                return segment.payload().len();
            }
        }
    }
}

/// Connects, and transfers `LEN` bytes in each direction.
fn used(guest: &mut Guest, port: u16, server: u16) -> End {
    let mut end = End { port, server, next: 1000, wanted: 0 };
    end.send(guest, TcpControl::Syn, &[]);
    end.receive(guest);
    for _ in 0..2 {
        end.send(guest, TcpControl::None, &[7; LEN / 2]);
    }
    let mut received = 0;
    while received < LEN {
        received += end.receive(guest);
        end.send(guest, TcpControl::None, &[]);
    }
    end
}

fn resident() -> usize {
    let pages = std::fs::read_to_string("/proc/self/statm").unwrap();
    pages.split(' ').nth(1).unwrap().parse::<usize>().unwrap() * 4096
}

/// 1 MiB for 100 idle flows that have carried data, after others that came and went.
#[test]
fn idle_flow_after_use_costs_less_than_eight_kibibytes() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let server = listener.local_addr().unwrap().port();
    let host = thread::spawn(move || {
        let mut bytes = vec![0; LEN];
        let mut serve = || {
            let (mut stream, _) = listener.accept().unwrap();
            stream.read_exact(&mut bytes).unwrap();
            stream.write_all(&bytes).unwrap();
            stream
        };
        for _ in 0..FLOWS {
            serve();
        }
        (0..FLOWS).map(|_| serve()).collect::<Vec<_>>()
    });
    let mut with_room = settings(&["host:*"]);
    with_room.flows = usize::from(FLOWS);
    let mut guest = Guest::new(with_room);
    for port in 0..FLOWS {
        used(&mut guest, 10_000 + port, server).send(&mut guest, TcpControl::Rst, &[]);
    }
    let before = resident();
    let mut ends: Vec<_> = (0..FLOWS).map(|port| used(&mut guest, 20_000 + port, server)).collect();
    let streams = host.join().unwrap();
    let mut cost = resident().saturating_sub(before) / usize::from(FLOWS);
    // Buffers are released a second after the last bytes; each wait ends when the network's timer expires.
    for _ in 0..1000 {
        if cost < EXPECTED {
            break;
        }
        guest.next_news();
        cost = resident().saturating_sub(before) / usize::from(FLOWS);
    }
    println!("{cost} bytes for each idle flow, {} MiB resident in all", resident() >> 20);
    assert!(cost < EXPECTED, "an idle flow costs {cost} bytes");
    // The connections still work.
    for (end, mut stream) in ends.iter_mut().zip(&streams) {
        end.send(&mut guest, TcpControl::None, b"x");
        stream.read_exact(&mut [0; 1]).unwrap();
    }
}
