//! Wrong usage, wrong devices: one line that says what is wrong, and the documented exit code.

use std::process::{Output, Stdio};

use frazil_testing::golden;

use crate::run::{Opening, errors, file, frazil};

/// Runs, and wants nothing on standard output, one line on standard error, and this exit code.
fn refused(arguments: &[&str], exit_code: i32) -> String {
    let output = frazil(arguments).output().unwrap();
    assert_refused(arguments, &output, exit_code)
}

fn assert_refused(arguments: &[&str], output: &Output, exit_code: i32) -> String {
    let errors = errors(output);
    assert_eq!(output.status.code(), Some(exit_code), "{arguments:?}: {errors}");
    assert_eq!(output.stdout, b"", "{arguments:?}");
    assert_eq!(errors.lines().count(), 1, "{arguments:?}: {errors}");
    errors.strip_prefix("error: ").unwrap_or_else(|| panic!("{arguments:?}: {errors}")).trim_end().to_owned()
}

#[test]
fn wrong_usage_is_one_line_and_exit_code_2() {
    assert_eq!(refused(&["fly"], 2), "unrecognized subcommand 'fly'; see: frazil --help");
    assert_eq!(
        refused(&["list", "--fron", "3", "x"], 2),
        "unexpected argument '--fron' found; a similar argument exists: '--from'; see: frazil list --help"
    );
    assert!(refused(&["list"], 2).contains("<DEV>"));
    assert!(refused(&["list", "-b", "inode", "x"], 2).contains("there are: extents, inodes"));
    for arguments in [
        ["list", "--from", "1:2:3:4", "x"],
        ["list", "--level", "9", "x"],
        ["list", "--cache", "much", "x"],
        ["list", "--degraded=a bit", "-n1", "x"],
        ["list-journal", "--from", "-1", "x"],
        ["completions", "ed", "-v", "-v"],
    ] {
        assert!(refused(&arguments, 2).contains("see: frazil"), "{arguments:?}");
    }
}

#[test]
fn without_arguments_there_is_help() {
    let output = frazil([""; 0]).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(errors(&output).contains("show-super"));
    for arguments in [&["--help"][..], &["help", "list"], &["list", "-h"], &["--version"]] {
        let output = frazil(arguments).output().unwrap();
        assert!(output.status.success() && output.stderr.is_empty(), "{arguments:?}");
        assert!(output.stdout.starts_with(b"frazil") || output.stdout.len() > 200, "{arguments:?}");
    }
}

#[test]
fn what_is_no_volume_is_refused_in_one_line() {
    let dir = tempfile::tempdir().unwrap();
    let noise: Vec<u8> = (0..1u32 << 18).flat_map(|i| i.wrapping_mul(2_654_435_761).to_le_bytes()).collect();
    let garbage = [file(&dir, "empty", b""), file(&dir, "short", b"x"), file(&dir, "noise", &noise)];
    let garbage = garbage.iter().map(|path| path.to_str().unwrap());
    for path in garbage.chain(["/nonexistent/device", "/dev/null", "/"]) {
        for command in ["show-super", "list", "list-journal"] {
            assert!(refused(&[command, path], 1).contains(path), "{command} {path}");
        }
    }
}

#[test]
fn devices_of_a_volume_come_together() {
    let image = golden::image("09-multi-striped");
    let devices = image.unpack();
    let [first, second] = [0, 1].map(|i| devices[i].to_str().unwrap());
    assert!(refused(&["list", "-n1", first], 1).contains("degraded"));
    let stranger = golden::image("02-small-tree").unpack()[0].display().to_string();
    assert!(refused(&["list", "-n1", first, &stranger], 1).contains("does not belong"));
    for devices in [&[first, second][..], &[second, first], &[&format!("{first}:{second}")]] {
        let output = frazil(["list", "-n1", "-b", "inodes"].iter().chain(devices)).output().unwrap();
        assert!(output.status.success() && output.stderr.is_empty(), "{}", errors(&output));
    }
    // The first device alone lacks data, so that only "very" helps.
    assert!(refused(&["list", "-n1", "--degraded", first], 1).contains("very"));
    let output = frazil(["list", "-n1", "-b", "inodes", "--degraded=very", first]).output().unwrap();
    assert!(output.status.success());
    assert_eq!(errors(&output), "note: device 1 is missing\n");
}

#[test]
fn a_passphrase_is_needed_and_checked() {
    let image = golden::image("08-crash-encrypted");
    let device = image.unpack()[0].display().to_string();
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &[u8]| file(&dir, name, text).display().to_string();
    let with =
        |file: &str| ["list", "-n1", "-b", "inodes", "--passphrase-file", file, &device].map(str::to_owned);
    for text in [&b"correct horse"[..], b"correct horse\n", b"correct horse\nsecond line"] {
        let output = frazil(with(&file("right", text))).output().unwrap();
        assert!(output.status.success(), "{}", errors(&output));
    }
    let run = |arguments: &[String]| {
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        refused(&arguments, 1)
    };
    assert!(run(&with(&file("wrong", b"wrong"))).contains("passphrase"));
    assert!(run(&with("/nonexistent/file")).contains("/nonexistent/file"));
}

#[test]
fn more_is_said_when_asked() {
    let opening = Opening::of(&golden::image("08-crash-create"));
    assert_eq!(errors(&opening.run(&["list", "-n0"], &[])), "");
    let told = errors(&opening.run(&["-v", "list", "-n0"], &[]));
    assert!(told.starts_with("note: it was not shut down cleanly: entries "), "{told}");
}

#[test]
fn a_reader_that_goes_away_is_no_error() {
    let opening = Opening::of(&golden::image("03-many-files"));
    let mut child =
        frazil(["list", &opening.devices]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", output.status);
    assert_eq!(errors(&output), "");
}

#[test]
fn a_full_disk_is_an_error() {
    let opening = Opening::of(&golden::image("02-small-tree"));
    let full = std::fs::File::options().write(true).open("/dev/full").unwrap();
    let output = frazil(["list", &opening.devices]).stdout(full).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(errors(&output).starts_with("error: cannot write to standard output: No space left"));
}

#[test]
fn completions_know_the_commands() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = crate::run::checked(frazil(["completions", shell]));
        assert!(String::from_utf8(script).unwrap().contains("list-journal"), "{shell}");
    }
}
