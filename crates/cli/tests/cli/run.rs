//! Running the command.

use std::ffi::OsStr;
use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use frazil_testing::golden::GoldenImage;

/// The command, in UTC, without a terminal and without anything to read.
pub(crate) fn frazil<S: AsRef<OsStr>>(arguments: impl IntoIterator<Item = S>) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_frazil"));
    command.env("TZ", "UTC").stdin(Stdio::null()).args(arguments);
    command
}

/// The devices of an image as one argument, and what else it takes to open it.
pub(crate) struct Opening {
    pub(crate) devices: String,
    options: Vec<&'static str>,
    passphrase: Option<Vec<u8>>,
}

impl Opening {
    pub(crate) fn of(image: &GoldenImage) -> Opening {
        let devices: Vec<String> = image.unpack().iter().map(|path| path.display().to_string()).collect();
        let passphrase = image.passphrase_bytes().map(<[u8]>::to_vec);
        let options = if passphrase.is_some() { vec!["--passphrase-file", "-"] } else { vec![] };
        Opening { devices: devices.join(":"), options, passphrase }
    }

    /// Runs a command on the image: `arguments`, the devices, then `rest`.
    pub(crate) fn run(&self, arguments: &[&str], rest: &[&str]) -> Output {
        let devices = [self.devices.as_str()];
        let all = arguments.iter().chain(&self.options).chain(&devices).chain(rest);
        let mut command = frazil(all);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut stdin = child.stdin.take().unwrap();
        // It may not want to read it.
        let _ = stdin.write_all(self.passphrase.as_deref().unwrap_or_default());
        drop(stdin);
        child.wait_with_output().unwrap()
    }

    /// As [`Opening::run`]: what it printed, which must be all there is.
    pub(crate) fn output(&self, arguments: &[&str], rest: &[&str]) -> Vec<u8> {
        let output = self.run(arguments, rest);
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{arguments:?} {}: {} {errors}", self.devices, output.status);
        output.stdout
    }

    /// As [`Opening::output`], as text. What is not UTF-8 is replaced.
    pub(crate) fn text(&self, arguments: &[&str], rest: &[&str]) -> String {
        String::from_utf8_lossy(&self.output(arguments, rest)).into_owned()
    }
}

/// A file with this content, in a directory that must be kept.
pub(crate) fn file(dir: &tempfile::TempDir, name: &str, content: &[u8]) -> PathBuf {
    let path = dir.path().join(name);
    std::fs::write(&path, content).unwrap();
    path
}

/// What is on standard error.
pub(crate) fn errors(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// What the command prints; it must succeed.
pub(crate) fn checked(mut command: Command) -> Vec<u8> {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", errors(&output));
    output.stdout
}
