//! The system calls of a network, for filters.

use vmm_sandbox::Allow;

/// The flags of every socket.
const NON_BLOCKING: u32 = (libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK) as u32;

/// What the thread of a [`UserNet`](crate::UserNet) calls, after it was opened.
pub const SYSTEM_CALLS: &[Allow] = &[
    // Sockets of flows: TCP, UDP and echo requests. Landlock's ports aren't those of MPTCP, SCTP and DCCP. Raw sockets need
    // CAP_NET_RAW.
    Allow::all(
        libc::SYS_socket,
        &[
            (0, &[libc::AF_INET as u32, libc::AF_INET6 as u32]),
            (1, &[libc::SOCK_STREAM as u32 | NON_BLOCKING, libc::SOCK_DGRAM as u32 | NON_BLOCKING]),
            (2, &[0, libc::IPPROTO_ICMP as u32, libc::IPPROTO_ICMPV6 as u32]),
        ],
    ),
    Allow::call(libc::SYS_connect),
    Allow::call(libc::SYS_listen),
    Allow::call(libc::SYS_accept4),
    // Not TCP Fast Open, which connects and isn't asked for a port by Landlock.
    Allow::masked(libc::SYS_sendto, 3, libc::MSG_FASTOPEN as u32, 0),
    Allow::call(libc::SYS_recvfrom),
    Allow::call(libc::SYS_shutdown),
    Allow::when(libc::SYS_getsockopt, 1, &[libc::SOL_SOCKET as u32]),
    // What the peer has acknowledged.
    Allow::all(libc::SYS_getsockopt, &[(1, &[libc::IPPROTO_TCP as u32]), (2, &[libc::TCP_INFO as u32])]),
    Allow::all(
        libc::SYS_setsockopt,
        &[(1, &[libc::SOL_SOCKET as u32]), (2, &[libc::SO_KEEPALIVE as u32, libc::SO_LINGER as u32])],
    ),
    Allow::all(libc::SYS_setsockopt, &[(1, &[libc::IPPROTO_TCP as u32]), (2, &[libc::TCP_NODELAY as u32])]),
    Allow::call(libc::SYS_epoll_wait),
    Allow::call(libc::SYS_epoll_pwait),
    Allow::call(libc::SYS_epoll_pwait2),
    Allow::call(libc::SYS_epoll_ctl),
    Allow::call(libc::SYS_timerfd_settime),
    // Waiting for the end of connections.
    Allow::call(libc::SYS_ppoll),
];
