//! The initramfs: a static busybox, the modules, and a script that makes the host's root the guest's.
//!
//! The script mounts the host's whole root read-only over 9p and changes into it, so that the host's programs and
//! libraries are there, ours among them. `/tmp` is the guest's own; the directory that host and guest share and the
//! place to mount volumes lie in it, so nothing depends on where the host keeps its files.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::{Kernel, find};
use crate::error::OracleError;

/// What the kernel runs first.
const INIT: &str = r#"#!/bin/busybox sh
b=/bin/busybox
$b mount -t proc proc /proc
$b mount -t devtmpfs dev /dev
for module in /modules/*.ko; do $b insmod $module || echo "cannot load $module"; done
$b mount -t 9p -o ro,trans=virtio,version=9p2000.L,msize=524288,cache=loose root /root || echo "cannot mount the root"
for fs in proc:proc sysfs:sys devtmpfs:dev tmpfs:run tmpfs:tmp; do $b mount -t ${fs%:*} ${fs%:*} /root/${fs#*:}; done
$b mkdir /root/tmp/shared /root/tmp/mnt
$b mount -t 9p -o trans=virtio,version=9p2000.L,msize=524288 shared /root/tmp/shared || echo "cannot mount the shared directory"
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/tmp LANG=C.UTF-8
$b chroot /root /tmp/shared/oracle guest /tmp/shared || echo "the guest failed with status $?"
$b poweroff -f
"#;

/// The initramfs in the cache, or one that is made now. Its name tells of what it was made.
pub(super) fn find_or_make(cache: &Path, kernel: &Kernel) -> Result<PathBuf, OracleError> {
    let recipe = frazil_testing::sha256_hex(INIT.as_bytes());
    let path = cache.join(format!("initramfs-{}-{}", kernel.release, &recipe[..16]));
    if !path.is_file() {
        let work = tempfile::tempdir_in(cache).map_err(OracleError::io(cache))?;
        fill(work.path(), kernel)?;
        let made = work.path().with_extension("cpio");
        pack(work.path(), &made)?;
        std::fs::rename(&made, &path).map_err(OracleError::io(&path))?;
    }
    Ok(path)
}

fn fill(dir: &Path, kernel: &Kernel) -> Result<(), OracleError> {
    for name in ["bin", "dev", "modules", "proc", "root"] {
        std::fs::create_dir(dir.join(name)).map_err(OracleError::io(dir))?;
    }
    let busybox = static_busybox()?;
    std::fs::copy(&busybox, dir.join("bin/busybox")).map_err(OracleError::io(&busybox))?;
    let modules = std::fs::read_dir(&kernel.modules).map_err(OracleError::io(&kernel.modules))?;
    for module in modules {
        let module = module.map_err(OracleError::io(&kernel.modules))?;
        std::fs::copy(module.path(), dir.join("modules").join(module.file_name()))
            .map_err(OracleError::io(module.path()))?;
    }
    let init = dir.join("init");
    std::fs::write(&init, INIT).map_err(OracleError::io(&init))?;
    std::fs::set_permissions(&init, Permissions::from_mode(0o755)).map_err(OracleError::io(&init))
}

/// The static busybox; the other one needs libraries that the initramfs does not have.
fn static_busybox() -> Result<PathBuf, OracleError> {
    let missing = OracleError::MissingTool { tool: "busybox (static)", package: "busybox-static" };
    let busybox = find("busybox", "busybox-static")?;
    let program = std::fs::read(&busybox).map_err(OracleError::io(&busybox))?;
    if is_static(&program) { Ok(busybox) } else { Err(missing) }
}

/// Whether a 64-bit ELF program has no program header of the type (3) that names an interpreter.
fn is_static(elf: &[u8]) -> bool {
    let bytes = |at: usize, len: usize| elf.get(at..at.saturating_add(len)).unwrap_or_default();
    let number = |at, len| bytes(at, len).iter().rev().fold(0_usize, |n, &byte| n << 8 | usize::from(byte));
    let (table, size, count) = (number(32, 8), number(54, 2), number(56, 2));
    elf.starts_with(b"\x7fELF\x02") && (0..count).all(|n| number(table.saturating_add(n * size), 4) != 3)
}

/// Packs the directory, uncompressed: an emulated processor reads the bytes faster than it would unpack them.
fn pack(dir: &Path, archive: &Path) -> Result<(), OracleError> {
    let cpio = find("cpio", "cpio")?;
    let out = std::fs::File::create(archive).map_err(OracleError::io(archive))?;
    let status = Command::new("sh")
        .args(["-c", "find . | \"$1\" -o -H newc --quiet", "sh"])
        .arg(&cpio)
        .current_dir(dir)
        .stdin(Stdio::null())
        .stdout(out)
        .status()
        .map_err(OracleError::io(&cpio))?;
    if status.success() {
        return Ok(());
    }
    Err(OracleError::Tool { command: "cpio".to_owned(), why: status.to_string() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_with_an_interpreter_is_not_static() {
        let own = std::fs::read(std::env::current_exe().unwrap()).unwrap();
        assert!(!is_static(&own));
        assert!(!is_static(b""));
        let mut none = own;
        none[56..58].fill(0);
        assert!(is_static(&none));
    }
}
