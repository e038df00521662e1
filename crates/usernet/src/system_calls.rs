//! The system calls of a network, for filters.

use vmm_sandbox::Allow;

/// What the thread of a [`UserNet`](crate::UserNet) calls, after it was opened.
pub const SYSTEM_CALLS: &[Allow] = &[
    // Sockets of flows. Not of every protocol: Landlock's ports aren't those of MPTCP and SCTP. A raw one needs CAP_NET_RAW.
    Allow::both(
        libc::SYS_socket,
        (0, &[libc::AF_INET as u32, libc::AF_INET6 as u32]),
        (2, &[0, libc::IPPROTO_ICMP as u32, libc::IPPROTO_ICMPV6 as u32]),
    ),
    Allow::call(libc::SYS_connect),
    Allow::call(libc::SYS_listen),
    Allow::call(libc::SYS_accept4),
    Allow::call(libc::SYS_sendto),
    Allow::call(libc::SYS_recvfrom),
    Allow::call(libc::SYS_recvmsg),
    Allow::call(libc::SYS_sendmsg),
    Allow::call(libc::SYS_shutdown),
    Allow::call(libc::SYS_getsockopt),
    Allow::call(libc::SYS_setsockopt),
    Allow::call(libc::SYS_getsockname),
    Allow::call(libc::SYS_getpeername),
    // What the peer hasn't acknowledged yet (SIOCOUTQ), and what isn't read yet.
    Allow::when(libc::SYS_ioctl, 1, &[libc::TIOCOUTQ as u32, libc::FIONREAD as u32]),
    Allow::call(libc::SYS_epoll_wait),
    Allow::call(libc::SYS_epoll_pwait),
    Allow::call(libc::SYS_epoll_pwait2),
    Allow::call(libc::SYS_epoll_ctl),
    Allow::call(libc::SYS_timerfd_settime),
    Allow::call(libc::SYS_poll),
    Allow::call(libc::SYS_ppoll),
];
