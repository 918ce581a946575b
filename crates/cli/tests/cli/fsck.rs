//! `fsck -n`: exit codes of fsck(8), and what it says.

use frazil_testing::golden;
use serde_json::Value;

use crate::run::{Opening, errors, file, frazil};

fn lines(output: &[u8]) -> Vec<Value> {
    String::from_utf8_lossy(output).lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn a_volume_without_fault_is_clean() {
    for name in ["02-small-tree", "07-encrypted", "08-crash-multi", "18-newer-1.39-ec"] {
        let Some(image) = golden::all().into_iter().find(|image| image.name == name) else { continue };
        assert_eq!(Opening::of(&image).text(&["fsck", "-n"], &[]), "clean\n", "{name}");
    }
}

#[test]
fn what_the_next_start_finishes_is_no_fault() {
    let output = Opening::of(&golden::image("13-orphans")).run(&["fsck", "-n", "--json"], &[]);
    assert_eq!(output.status.code(), Some(0), "{}", errors(&output));
    let lines = lines(&output.stdout);
    assert!(lines.iter().filter(|line| line["kind"] == "finding").all(|line| line["severity"] == "pending"));
    let summary = lines.last().unwrap();
    assert_eq!((&summary["pending"], &summary["clean"]), (&Value::from(61), &Value::from(true)));
}

#[test]
fn a_fault_is_named_and_gives_code_4() {
    let opening = Opening::of(&golden::image("15-frozen-orphan"));
    let output = opening.run(&["fsck", "-n"], &[]);
    assert_eq!(output.status.code(), Some(4));
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(text.starts_with("error: deleted_inode_but_clean (211): inode "), "{text}");
    assert!(text.ends_with("1 errors, 0 warnings; nothing was changed\n"), "{text}");
    let json = lines(&opening.run(&["fsck", "-n", "--json"], &[]).stdout);
    assert_eq!(
        (&json[0]["id"], &json[0]["name"]),
        (&Value::from(211), &Value::from("deleted_inode_but_clean"))
    );
}

#[test]
fn what_cannot_be_checked_gives_code_8_and_wrong_usage_16() {
    let dir = tempfile::tempdir().unwrap();
    let nothing = file(&dir, "nothing.img", &[0; 65536]);
    let code = |arguments: &[&str]| frazil(arguments).arg(&nothing).output().unwrap().status.code();
    assert_eq!(code(&["fsck", "-n"]), Some(8));
    assert_eq!(code(&["fsck"]), Some(16), "there is no repair yet");
    assert_eq!(code(&["fsck", "--no-such-option"]), Some(16));
}
