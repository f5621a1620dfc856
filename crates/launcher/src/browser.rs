//! Opens a page in the user's browser.

use std::{
    os::unix::process::CommandExt,
    process::{Command, Stdio},
};

use crate::report;

/// The system's program that opens an address. On Linux it knows desktops, and `BROWSER`.
const PROGRAM: &str = if cfg!(target_os = "macos") { "open" } else { "xdg-open" };

/// Opens `url`. If that is not possible, the user is told.
pub fn open(url: &str) {
    let mut command = Command::new(PROGRAM);
    command.arg(url).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    // A process group of its own: Ctrl-C does not end the browser.
    match command.process_group(0).spawn() {
        Ok(mut child) => {
            // Nobody needs its exit code, but it must not stay a zombie.
            std::thread::spawn(move || drop(child.wait()));
        }
        Err(error) => report::print_no_browser(PROGRAM, &error),
    }
}
