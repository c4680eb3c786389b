//! The examples as child processes.
#![allow(dead_code, unreachable_pub)] // each test binary uses a part of it

use std::env;
use std::path::PathBuf;
use std::process::{Command, Stdio};

/// The example `name`, with nothing in its environment that would change what it does.
pub fn example(name: &str) -> Command {
    // This test is in target/<profile>/deps, the examples are next to that folder.
    let mut path: PathBuf = env::current_exe().expect("the test knows its own path");
    path.pop();
    path.pop();
    path.push("examples");
    path.push(format!("{name}{}", env::consts::EXE_SUFFIX));
    assert!(
        path.is_file(),
        "{} is missing: `cargo test` builds it, `cargo test --test <name>` does not; \
         run `cargo build --example {name}` (with the same profile) first",
        path.display()
    );
    let mut command = Command::new(path);
    for (name, _) in env::vars_os() {
        if name.to_string_lossy().starts_with("OTEL_") {
            command.env_remove(name);
        }
    }
    command.env("NO_PROXY", "127.0.0.1").stdin(Stdio::null());
    command
}
