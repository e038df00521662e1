use super::*;

fn allow(rules: &[&str]) -> Allow {
    let rules: Vec<String> = rules.iter().map(|rule| (*rule).to_owned()).collect();
    Allow::parse(&rules).unwrap()
}

/// Whether `rules` permit it on a host that has, or is directly connected to, 9.9.9.9 and 2620:fe::fe.
fn permits(rules: &[&str], protocol: Protocol, to: &str) -> bool {
    permitted_by(&allow(rules), protocol, to)
}

fn permitted_by(allow: &Allow, protocol: Protocol, to: &str) -> bool {
    let near: [IpAddr; 2] = ["9.9.9.9".parse().unwrap(), "2620:fe::fe".parse().unwrap()];
    allow.permits(protocol, to.parse().unwrap(), |address| near.contains(&address))
}

#[track_caller]
fn assert_error(rule: &str, message: &str) {
    assert_eq!(Allow::parse(&[rule.to_owned()]).unwrap_err().to_string(), message);
}

use Protocol::{Icmp, Tcp, Udp};

#[test]
fn allow_empty_list_permits_nothing() {
    assert!(!permits(&[], Tcp, "203.0.113.7:443"));
    assert!(!permits(&[], Udp, "10.0.2.3:53"));
    assert!(!permits(&[], Icmp, "203.0.113.7:0"));
}

#[test]
fn allow_all_permits_what_can_be_a_destination() {
    let all = Allow::all();
    assert!(permitted_by(&all, Tcp, "203.0.113.7:443"));
    assert!(permitted_by(&all, Tcp, "10.0.2.2:22"));
    assert!(permitted_by(&all, Udp, "10.0.2.3:53"));
    assert!(permitted_by(&all, Icmp, "192.168.0.1:0"));
    assert!(permitted_by(&all, Tcp, "9.9.9.9:22"));
    assert!(permitted_by(&all, Tcp, "168.63.129.16:80"));
    assert!(permitted_by(&all, Tcp, "[fe80::1]:22"));
    assert!(!permitted_by(&all, Udp, "224.0.0.251:5353"));
    assert!(!permitted_by(&all, Udp, "255.255.255.255:9"));
    assert!(!permitted_by(&all, Udp, "10.0.2.255:9"));
    assert!(!permitted_by(&all, Udp, "[ff02::fb]:5353"));
    assert!(!permitted_by(&all, Tcp, "0.0.0.0:22"));
    assert!(!permitted_by(&all, Tcp, "[::]:22"));
}

#[test]
fn rule_permits_only_its_protocol() {
    assert!(permits(&["tcp:203.0.113.7:443"], Tcp, "203.0.113.7:443"));
    assert!(!permits(&["tcp:203.0.113.7:443"], Udp, "203.0.113.7:443"));
    assert!(!permits(&["tcp:203.0.113.7:*"], Icmp, "203.0.113.7:0"));
    assert!(permits(&["icmp:203.0.113.7"], Icmp, "203.0.113.7:0"));
    assert!(!permits(&["icmp:203.0.113.7"], Tcp, "203.0.113.7:443"));
}

#[test]
fn rule_permits_only_its_ports() {
    let rules = ["tcp:203.0.113.7:8000-8100", "tcp:203.0.113.7:22"];
    assert!(!permits(&rules, Tcp, "203.0.113.7:7999"));
    assert!(permits(&rules, Tcp, "203.0.113.7:8000"));
    assert!(permits(&rules, Tcp, "203.0.113.7:8100"));
    assert!(!permits(&rules, Tcp, "203.0.113.7:8101"));
    assert!(permits(&rules, Tcp, "203.0.113.7:22"));
    assert!(permits(&["udp:203.0.113.7:*"], Udp, "203.0.113.7:65535"));
}

#[test]
fn rule_of_network_permits_its_first_to_last_address() {
    let rules = ["tcp:172.16.0.0/12:*"];
    assert!(!permits(&rules, Tcp, "172.15.255.255:80"));
    assert!(permits(&rules, Tcp, "172.16.0.0:80"));
    assert!(permits(&rules, Tcp, "172.31.255.255:80"));
    assert!(!permits(&rules, Tcp, "172.32.0.0:80"));
    assert!(!permits(&rules, Tcp, "[::ffff:172.16.0.1]:80"));
}

#[test]
fn rule_of_ipv6_network_is_the_same_with_prefix_inside_or_outside() {
    for rule in ["tcp:[2001:db8::]/32:443", "tcp:[2001:db8::/32]:443"] {
        assert!(permits(&[rule], Tcp, "[2001:db8::]:443"), "{rule}");
        assert!(permits(&[rule], Tcp, "[2001:db8:ffff:ffff:ffff:ffff:ffff:ffff]:443"), "{rule}");
        assert!(!permits(&[rule], Tcp, "[2001:db9::]:443"), "{rule}");
        assert!(!permits(&[rule], Tcp, "32.1.13.184:443"), "{rule}");
    }
    assert!(permits(&["icmp:[2001:db8::7]"], Icmp, "[2001:db8::7]:0"));
    assert!(permits(&["icmp:[fe80::]/10"], Icmp, "[febf::1]:0"));
}

/// A shift by 32 or 128 would overflow.
#[test]
fn rule_of_prefix_0_permits_each_address_of_its_kind() {
    assert!(permits(&["tcp:0.0.0.0/0:*"], Tcp, "192.168.1.1:80"));
    assert!(permits(&["tcp:[::]/0:*"], Tcp, "[fe80::1]:80"));
    assert!(!permits(&["tcp:[::]/0:*"], Tcp, "192.168.1.1:80"));
}

#[test]
fn star_permits_public_addresses_only() {
    let rules = ["tcp:*:443", "icmp:*"];
    assert!(permits(&rules, Tcp, "1.1.1.1:443"));
    assert!(permits(&rules, Tcp, "[2606:4700::1111]:443"));
    assert!(permits(&rules, Icmp, "1.1.1.1:0"));
    assert!(!permits(&rules, Tcp, "1.1.1.1:80"));
    assert!(!permits(&rules, Tcp, "10.0.2.2:443"));
    assert!(!permits(&rules, Tcp, "127.0.0.1:443"));
    assert!(!permits(&rules, Tcp, "192.168.1.1:443"));
    assert!(!permits(&rules, Tcp, "169.254.169.254:443"));
    assert!(!permits(&rules, Tcp, "168.63.129.16:443"));
    assert!(!permits(&rules, Icmp, "168.63.129.16:0"));
    assert!(!permits(&rules, Tcp, "203.0.113.7:443"));
    assert!(!permits(&rules, Tcp, "[::1]:443"));
    assert!(!permits(&rules, Tcp, "[::ffff:1.1.1.1]:443"));
    assert!(!permits(&rules, Tcp, "[fd76:6d6d::2]:443"));
    assert!(!permits(&rules, Icmp, "192.168.1.1:0"));
}

/// A public address of the host or its neighbours must be listed: services often trust such addresses.
#[test]
fn star_leaves_out_near_addresses_which_may_be_listed() {
    assert!(!permits(&["tcp:*:443"], Tcp, "9.9.9.9:443"));
    assert!(!permits(&["tcp:*:443"], Tcp, "[2620:fe::fe]:443"));
    assert!(permits(&["tcp:*:443", "tcp:9.9.9.9:443"], Tcp, "9.9.9.9:443"));
    assert!(permits(&["tcp:9.9.9.0/24:443", "tcp:*:443"], Tcp, "9.9.9.9:443"));
}

#[test]
fn metadata_address_of_a_cloud_may_be_listed() {
    assert!(permits(&["tcp:*:80", "tcp:168.63.129.16:80"], Tcp, "168.63.129.16:80"));
    assert!(permits(&["tcp:169.254.169.254:80"], Tcp, "169.254.169.254:80"));
}

/// Each answer costs a request to the kernel.
#[test]
fn routes_are_asked_for_only_where_star_decides() {
    let to = "9.9.9.9:443".parse().unwrap();
    let panics = |_: IpAddr| -> bool { panic!("asked") };
    assert!(!allow(&["tcp:*:80", "udp:*:443"]).permits(Tcp, to, panics));
    assert!(allow(&["tcp:*:443", "tcp:9.9.9.9:443"]).permits(Tcp, to, panics));
    assert!(!allow(&["tcp:*:*"]).permits(Tcp, "10.0.0.1:443".parse().unwrap(), panics));
    assert!(Allow::all().permits(Tcp, to, panics));
    assert!(allow(&["dns", "icmp:*"]).asks_what_is_near());
    assert!(!allow(&["dns", "host:*", "tcp:0.0.0.0/0:*"]).asks_what_is_near());
    assert!(!Allow::all().asks_what_is_near());
}

#[test]
fn host_rule_permits_ports_of_gateway_by_tcp_and_udp() {
    let rules = ["host:8080"];
    assert!(permits(&rules, Tcp, "10.0.2.2:8080"));
    assert!(permits(&rules, Udp, "10.0.2.2:8080"));
    assert!(permits(&rules, Tcp, "[fd76:6d6d::2]:8080"));
    assert!(!permits(&rules, Tcp, "10.0.2.2:8081"));
    assert!(!permits(&rules, Tcp, "10.0.2.3:8080"));
    assert!(!permits(&rules, Tcp, "127.0.0.1:8080"));
    assert!(permits(&["host:*"], Tcp, "10.0.2.2:1"));
}

#[test]
fn dns_rule_permits_port_53_of_resolver_by_tcp_and_udp() {
    assert!(permits(&["dns"], Udp, "10.0.2.3:53"));
    assert!(permits(&["dns"], Tcp, "10.0.2.3:53"));
    assert!(permits(&["dns"], Udp, "[fd76:6d6d::3]:53"));
    assert!(!permits(&["dns"], Udp, "10.0.2.3:54"));
    assert!(!permits(&["dns"], Udp, "10.0.2.2:53"));
    assert!(!permits(&["dns"], Udp, "1.1.1.1:53"));
    assert!(permits(&["udp:10.0.2.3:53"], Udp, "10.0.2.3:53"));
    assert!(!permits(&["udp:10.0.2.3:53"], Tcp, "10.0.2.3:53"));
}

/// A rule for the office network must not open the host's loopback, which the guest sees as 10.0.2.2.
#[test]
fn wide_network_leaves_out_gateway_and_loopback() {
    assert!(permits(&["tcp:10.0.0.0/8:*"], Tcp, "10.0.3.2:22"));
    assert!(!permits(&["tcp:10.0.0.0/8:*"], Tcp, "10.0.2.2:22"));
    assert!(!permits(&["udp:10.0.0.0/8:*"], Udp, "10.0.2.3:53"));
    assert!(!permits(&["tcp:0.0.0.0/0:*"], Tcp, "10.0.2.2:22"));
    assert!(!permits(&["tcp:0.0.0.0/0:*"], Tcp, "127.0.0.1:22"));
    assert!(!permits(&["tcp:[::]/0:*"], Tcp, "[::1]:22"));
    assert!(!permits(&["tcp:[::]/0:*"], Tcp, "[::ffff:127.0.0.1]:22"));
    assert!(!permits(&["tcp:[fc00::]/7:*"], Tcp, "[fd76:6d6d::2]:22"));
}

/// Sockets treat them as IPv4 addresses: otherwise a rule for all of IPv6 would open all of the host's IPv4
/// network.
#[test]
fn ipv6_network_leaves_out_ipv6_form_of_ipv4_addresses() {
    assert!(!permits(&["tcp:[::]/0:*"], Tcp, "[::ffff:192.168.1.1]:22"));
    assert!(!permits(&["tcp:[::]/64:*"], Tcp, "[::ffff:169.254.169.254]:80"));
    assert!(permits(&["tcp:[::ffff:0:0]/96:*"], Tcp, "[::ffff:192.168.1.1]:22"));
    assert!(!permits(&["tcp:[::ffff:0:0]/96:*"], Tcp, "[::ffff:127.0.0.1]:22"));
    assert!(permits(&["tcp:[::ffff:192.168.1.1]:22"], Tcp, "[::ffff:192.168.1.1]:22"));
}

#[test]
fn narrow_network_permits_gateway_and_loopback() {
    assert!(permits(&["tcp:10.0.2.2:22"], Tcp, "10.0.2.2:22"));
    assert!(permits(&["tcp:10.0.2.0/24:22"], Tcp, "10.0.2.2:22"));
    assert!(permits(&["tcp:127.0.0.0/8:22"], Tcp, "127.0.0.1:22"));
    assert!(permits(&["tcp:[::1]:22"], Tcp, "[::1]:22"));
    assert!(permits(&["tcp:[fd76:6d6d::]/64:22"], Tcp, "[fd76:6d6d::2]:22"));
    assert!(permits(&["tcp:[::ffff:127.0.0.1]:22"], Tcp, "[::ffff:127.0.0.1]:22"));
}

#[test]
fn rule_error_carries_index_of_rule() {
    let rules = ["dns".to_owned(), "tcp:*:443".to_owned(), "tpc:*:80".to_owned(), "bad".to_owned()];
    let error = Allow::parse(&rules).unwrap_err();
    assert_eq!(error.index(), 2);
    assert_eq!(
        error.to_string(),
        r#""tpc:*:80" doesn't start with a protocol: write "tcp:", "udp:", "icmp:", "host:" or "dns""#
    );
}

#[test]
fn rule_without_protocol_is_refused() {
    let no_protocol = r#"doesn't start with a protocol: write "tcp:", "udp:", "icmp:", "host:" or "dns""#;
    assert_error("TCP:*:80", &format!(r#""TCP:*:80" {no_protocol}"#));
    assert_error("*:80", &format!(r#""*:80" {no_protocol}"#));
    assert_error(":80", &format!(r#"":80" {no_protocol}"#));
    assert_error("192.0.2.7", &format!(r#""192.0.2.7" {no_protocol}"#));
}

#[test]
fn rule_that_is_empty_or_spaced_is_refused() {
    assert_error("", r#""" is empty: write a rule, such as "tcp:*:443", or leave it out"#);
    assert_error("tcp: *:80", r#""tcp: *:80" holds white space: write the rule without any"#);
    assert_error("dns\n", r#""dns\n" holds white space: write the rule without any"#);
}

#[test]
fn rule_all_in_list_is_refused() {
    assert_error("all", r#""all" can't be in a list: write "allow": "all" instead of the list"#);
    assert_error("all:*", r#""all:*" can't be in a list: write "allow": "all" instead of the list"#);
}

#[test]
fn rule_without_a_part_says_which() {
    assert_error("tcp", r#""tcp" says no address: write "tcp:*:443", or an address for the *"#);
    assert_error("udp:", r#""udp:" says no address: write "udp:*:53", or an address for the *"#);
    assert_error("icmp", r#""icmp" says no address: write "icmp:*", or an address for the *"#);
    assert_error("tcp:*", r#""tcp:*" says no port: write "tcp:*:443", "tcp:*:8000-8100" or "tcp:*:*""#);
    assert_error(
        "udp:192.0.2.0/24:",
        r#""udp:192.0.2.0/24:" says no port: write "udp:192.0.2.0/24:443", "udp:192.0.2.0/24:8000-8100" or "udp:192.0.2.0/24:*""#,
    );
    assert_error(
        "tcp:[2001:db8::7]",
        r#""tcp:[2001:db8::7]" says no port: write "tcp:[2001:db8::7]:443", "tcp:[2001:db8::7]:8000-8100" or "tcp:[2001:db8::7]:*""#,
    );
    assert_error("host", r#""host" says no port: write "host:443", "host:8000-8100" or "host:*""#);
}

#[test]
fn rule_with_a_part_too_many_says_which() {
    assert_error("dns:53", r#""dns:53" has something after "dns", which takes nothing: write "dns""#);
    assert_error("dns:", r#""dns:" has something after "dns", which takes nothing: write "dns""#);
    assert_error("icmp:*:80", r#""icmp:*:80" has a port, but ICMP has no ports: write "icmp:*""#);
    assert_error(
        "icmp:[2001:db8::]/32:80",
        r#""icmp:[2001:db8::]/32:80" has a port, but ICMP has no ports: write "icmp:[2001:db8::]/32""#,
    );
    assert_error(
        "tcp:[2001:db8::/32]/32:80",
        r#""tcp:[2001:db8::/32]/32:80" has two prefix lengths: write one of them"#,
    );
}

#[test]
fn rule_with_bad_address_says_what_to_write() {
    assert_error(
        "tcp:example.com:80",
        r#""tcp:example.com:80" names "example.com": a rule needs an address: resolve the name and write its addresses"#,
    );
    assert_error(
        "tcp:192.0.2:80",
        r#""tcp:192.0.2:80" holds "192.0.2", which isn't an IPv4 address: write one such as "192.0.2.7""#,
    );
    assert_error(
        "tcp:80",
        r#""tcp:80" holds "80", which isn't an IPv4 address: write one such as "192.0.2.7""#,
    );
    assert_error(
        "tcp:2001:db8::7:80",
        r#""tcp:2001:db8::7:80" holds an IPv6 address without brackets: write it as "[2001:db8::7]""#,
    );
    assert_error(
        "icmp:fe80::1",
        r#""icmp:fe80::1" holds an IPv6 address without brackets: write it as "[2001:db8::7]""#,
    );
    assert_error(
        "tcp:[2001:db8::7:80",
        r#""tcp:[2001:db8::7:80" opens a bracket and doesn't close it: write "[2001:db8::7]""#,
    );
    assert_error(
        "tcp:[2001:db8::g]:80",
        r#""tcp:[2001:db8::g]:80" holds "2001:db8::g", which isn't an IPv6 address: write one such as "[2001:db8::7]""#,
    );
    assert_error(
        "tcp:[192.0.2.7]:80",
        r#""tcp:[192.0.2.7]:80" has an IPv4 address in brackets: write "192.0.2.7""#,
    );
    assert_error(
        "tcp:[2001:db8::]32:80",
        r#""tcp:[2001:db8::]32:80" has "32" after a bracket, where a prefix length or a port is expected: write "[2001:db8::]/32:443""#,
    );
}

#[test]
fn rule_with_bad_prefix_says_what_to_write() {
    assert_error(
        "tcp:192.0.2.7/24:80",
        r#""tcp:192.0.2.7/24:80" has address bits set beyond the prefix: write 192.0.2.0/24 for the network, or only the address"#,
    );
    assert_error(
        "tcp:[2001:db8::7]/32:80",
        r#""tcp:[2001:db8::7]/32:80" has address bits set beyond the prefix: write [2001:db8::]/32 for the network, or only the address"#,
    );
    assert_error(
        "tcp:192.0.2.0/33:80",
        r#""tcp:192.0.2.0/33:80" has "33" as its prefix length: write a number up to 32"#,
    );
    assert_error(
        "tcp:[2001:db8::/129]:80",
        r#""tcp:[2001:db8::/129]:80" has "129" as its prefix length: write a number up to 128"#,
    );
    assert_error(
        "tcp:192.0.2.0/:80",
        r#""tcp:192.0.2.0/:80" has "" as its prefix length: write a number up to 32"#,
    );
    assert_error(
        "tcp:192.0.2.0/+24:80",
        r#""tcp:192.0.2.0/+24:80" has "+24" as its prefix length: write a number up to 32"#,
    );
}

#[test]
fn rule_with_bad_port_says_what_to_write() {
    let form = r#"as a port: write a number from 1 to 65535, a range such as "8000-8100", or "*""#;
    assert_error("tcp:*:http", &format!(r#""tcp:*:http" has "http" {form}"#));
    assert_error("host:8000-", &format!(r#""host:8000-" has "8000-" {form}"#));
    assert_error("host:-80", &format!(r#""host:-80" has "-80" {form}"#));
    assert_error("host:+80", &format!(r#""host:+80" has "+80" {form}"#));
    assert_error("host:80,81", &format!(r#""host:80,81" has "80,81" {form}"#));
    assert_error("host:1-2-3", &format!(r#""host:1-2-3" has "1-2-3" {form}"#));
    assert_error("tcp:*:0", r#""tcp:*:0" has port 0, which isn't valid: write a number from 1 to 65535"#);
    assert_error(
        "tcp:*:0-80",
        r#""tcp:*:0-80" has port 0, which isn't valid: write a number from 1 to 65535"#,
    );
    assert_error("tcp:*:65536", r#""tcp:*:65536" has port 65536, but 65535 is the highest"#);
    assert_error(
        "tcp:*:80-4294967296",
        r#""tcp:*:80-4294967296" has port 4294967296, but 65535 is the highest"#,
    );
    assert_error("tcp:*:8100-8000", r#""tcp:*:8100-8000" has a reversed range: write 8000-8100"#);
}

fn tcp_ports(rules: &[&str]) -> Option<Vec<u16>> {
    let rules: Vec<_> = rules.iter().map(|rule| (*rule).to_owned()).collect();
    Allow::parse(&rules).unwrap().tcp_ports(Some(5353))
}

#[test]
fn tcp_ports_are_those_of_the_rules_for_tcp_and_of_the_resolver() {
    assert_eq!(tcp_ports(&[]), Some(vec![]));
    assert_eq!(tcp_ports(&["tcp:*:443", "udp:*:4433", "icmp:*", "host:80-82"]), Some(vec![443, 80, 81, 82]));
    assert_eq!(tcp_ports(&["dns"]), Some(vec![5353]));
}

#[test]
fn tcp_ports_that_are_too_many_are_all() {
    assert_eq!(tcp_ports(&["tcp:*:1-1024"]).map(|ports| ports.len()), Some(1024));
    assert_eq!(tcp_ports(&["tcp:*:1-1025"]), None);
    assert_eq!(tcp_ports(&["tcp:192.0.2.1:*"]), None);
    assert_eq!(Allow::all().tcp_ports(None), None);
}
