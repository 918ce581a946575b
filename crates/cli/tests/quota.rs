//! `frazil quota` on a real mount: needs root and FUSE.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

#[path = "cli/run.rs"]
#[allow(dead_code, reason = "the other test programs use the rest")]
mod run;
#[path = "cli/volume.rs"]
#[allow(dead_code, reason = "the other test programs use the rest")]
mod volume;

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::process::Command;

use serde_json::Value;

use volume::Volume;

/// What a shell says and how it ends, as a user without rights in the directory.
fn as_user(dir: &str, script: &str) -> (bool, String) {
    let output = Command::new("setpriv")
        .args(["--reuid", "1000", "--regid", "1000", "--clear-groups", "sh", "-c", script])
        .current_dir(dir)
        .output()
        .unwrap();
    (output.status.success(), String::from_utf8_lossy(&output.stderr).into_owned())
}

#[test]
fn limits_are_set_shown_and_kept() {
    let mut volume = Volume::formatted(&["--size", "64M", "-o", "usrquota=1"]);
    fs::set_permissions(volume.files.path(), fs::Permissions::from_mode(0o755)).unwrap();
    volume.mount();
    let home = volume.path("home").to_str().unwrap().to_owned();
    fs::create_dir(&home).unwrap();
    chown(&home, Some(1000), Some(1000)).unwrap();

    volume.text(&["quota", "set", "--user", "1000", "--space", "1M:512K", "--inodes", "4", &home]);
    let (ok, _) = as_user(&home, "head -c 600k /dev/zero >a && echo >b && echo >c");
    assert!(ok);
    let (ok, why) = as_user(&home, "echo >d");
    assert!(!ok && why.to_lowercase().contains("quota exceeded"), "{why}");
    let (ok, why) = as_user(&home, "head -c 600k /dev/zero >>a");
    assert!(!ok && why.to_lowercase().contains("quota exceeded"), "{why}");
    // Root is not limited.
    fs::write(format!("{home}/by root"), [1; 5000]).unwrap();

    let shown = volume.text(&["quota", "show", "--json", "@"]);
    let owners: Vec<Value> = shown.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let user = owners.iter().find(|owner| owner["id"] == 1000).unwrap();
    assert_eq!((&user["kind"], &user["inodes"]["used"]), (&"user".into(), &4.into()));
    assert_eq!((&user["space"]["hard"], &user["space"]["soft"]), (&(1 << 20).into(), &(512 << 10).into()));
    assert!(user["space"]["over_since_ns"].is_i64() && user["inodes"]["over_since_ns"].is_null());
    assert!((600 << 10..=1 << 20).contains(&user["space"]["used"].as_u64().unwrap()), "{user}");
    let text = volume.text(&["quota", "show", "@"]);
    let line = text.lines().find(|line| line.starts_with("user 1000 ")).unwrap();
    assert!(line.contains("512 KiB   1.00 MiB") && line.contains("! space since"), "{text}");

    // They are kept after the next mount.
    volume.umount();
    volume.mount();
    assert!(!as_user(&home, ": >d").0);
    volume.text(&["quota", "set", "--user", "1000", "--inodes", "0", "@"]);
    assert!(as_user(&home, ": >d").0);

    let project = ["quota", "set", "--project", "1", "--inodes", "1", "@"];
    assert!(volume.refused(&project, 1).contains("not supported: quotas that are not on"));
    assert!(volume.refused(&["quota", "set", "--user", "1", "@"], 2).contains("--space, --inodes or both"));
    assert!(volume.refused(&["quota", "set", "--space", "1G", "@"], 2).contains("--user"));
    assert!(volume.refused(&["quota", "show", "/proc"], 1).contains("does not lie in a frazil mount"));
    volume.umount();
}

#[test]
fn a_mount_says_which_quotas_are_on() {
    let mut volume = Volume::formatted(&["--size", "64M", "-o", "grpquota=1"]);
    volume.mount_with("rw,usrquota,nogrpquota");
    let home = volume.path("home").to_str().unwrap().to_owned();
    fs::set_permissions(volume.files.path(), fs::Permissions::from_mode(0o755)).unwrap();
    fs::create_dir(&home).unwrap();
    chown(&home, Some(1000), Some(1000)).unwrap();
    volume.text(&["quota", "set", "--user", "1000", "--inodes", "2", "@"]);
    assert!(as_user(&home, ": >a").0 && !as_user(&home, ": >b").0);
    // What is removed counts no more, at once.
    assert!(as_user(&home, "rm a; : >b; rm b; : >c").0);
    let group = ["quota", "set", "--group", "1000", "--inodes", "2", "@"];
    assert!(volume.refused(&group, 1).contains("quotas that are not on"));
    volume.umount();
    // The volume's own options have not changed, and the limit is kept for the next time.
    volume.mount();
    assert!(as_user(&home, ": >b").0);
    volume.text(&group);
    let shown = volume.text(&["quota", "show", "--json", "@"]);
    assert!(shown.lines().all(|line| line.contains("\"group\"")), "{shown}");
    volume.umount();
    volume.mount_with("rw,quota");
    assert!(!as_user(&home, ": >d").0);
    volume.umount();
}
