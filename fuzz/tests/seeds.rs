//! Every seed once, on any toolchain and without a fuzzer: what was found stays found.

use std::fs;

type Target = (&'static str, fn(&[u8]));

/// One test, since `config` sets the environment of the process.
#[test]
fn seeds_hold() {
    let targets: [Target; 8] = [
        ("carrier", batchlink_fuzz::carrier),
        ("collector_ops", batchlink_fuzz::collector_ops),
        ("config", batchlink_fuzz::config),
        ("dedup_truncation", batchlink_fuzz::dedup_truncation),
        ("json", batchlink_fuzz::json),
        ("operations", batchlink_fuzz::operations),
        ("processor", batchlink_fuzz::processor),
        ("record", batchlink_fuzz::record),
    ];
    for (target, run) in targets {
        let seeds = fs::read_dir(format!("seeds/{target}")).expect("a folder of seeds");
        let mut count = 0;
        for seed in seeds {
            let seed = seed.expect("a seed").path();
            println!("{}", seed.display());
            run(&fs::read(seed).expect("a file"));
            count += 1;
        }
        assert!(count >= 5, "{target} has {count} seeds");
    }
}
