//! Every stock kernel boots, by every boot protocol that it supports.

use driver::Monitor;
use libtest_mimic::Trial;
use rig::KernelKind;

use crate::linux::{BOOT_DEADLINE, CMDLINE, ENDED, Image, InitUp, boot, kernel};

/// The boot protocols that each file supports, the default first.
const PROTOCOLS: [(Image, [&str; 2]); 2] =
    [(Image::BzImage, ["linux64", "linux32"]), (Image::Vmlinux, ["pvh", "linux64"])];

pub(crate) fn tests() -> Vec<Trial> {
    let images = || {
        let with_kind = |kind| PROTOCOLS.map(|(image, protocols)| (kind, image, protocols));
        KernelKind::ALL.into_iter().flat_map(with_kind)
    };
    let name = |kind: KernelKind, image: Image| {
        format!("boot_{}_{}", kind.name().replace(['-', '.'], "_"), image.name())
    };
    let by_default = images().map(|(kind, image, [default, _])| {
        Trial::test(format!("{}_unasked_is_by_{default}", name(kind, image)), move || {
            assert_is_default(kind, image, default);
            Ok(())
        })
    });
    let by_protocol = images().flat_map(|(kind, image, protocols)| {
        protocols.map(|protocol| {
            Trial::test(format!("{}_by_{protocol}_reaches_init_and_resets", name(kind, image)), move || {
                assert_boots(kind, image, protocol);
                Ok(())
            })
        })
    });
    by_default.chain(by_protocol).collect()
}

fn assert_boots(kind: KernelKind, image: Image, protocol: &str) {
    let launch = boot((kind, image), &format!("{CMDLINE} QUIT")).args(["--protocol", protocol]);
    let mut monitor = launch.start();
    let up = InitUp::expect(&mut monitor);
    assert_eq!(up.release, kernel(kind).release());
    assert_eq!(up.cpus, 1);
    // 256 MiB, of which the kernel reserves at most a fifth.
    assert!((200 << 10..256 << 10).contains(&up.mem_kb), "{} KiB", up.mem_kb);
    monitor.expect_code(ENDED, BOOT_DEADLINE);
    assert_eq!(monitor.stderr(), "");
}

/// Asserts that the plan without a protocol is that with this one. Other tests boot it.
fn assert_is_default(kind: KernelKind, image: Image, protocol: &str) {
    let plan = |words: &[&str]| plan_of(boot((kind, image), CMDLINE).args(["--check"]).args(words).start());
    assert_eq!(plan(&[]), plan(&["--protocol", protocol]));
}

fn plan_of(mut monitor: Monitor) -> String {
    monitor.expect_code(ENDED, driver::DEADLINE);
    String::from_utf8(monitor.stdout()).expect("a plan is text")
}
