//! The kernel: boot image and modules out of Debian's package.
//!
//! Debian's 6.12 has the bcachefs module, in the distribution that has this kernel and in the security updates and backports of the
//! one before. The unsigned package is taken: the signed one would do, but is rebuilt less often. Of the unpacked package
//! only what is used is kept, the modules uncompressed and numbered in the order they are to be loaded.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::{find, run};
use crate::error::OracleError;

/// Modules the guest needs, and what they depend on. The driver finds checksum and cipher implementations by name, so those are no
/// dependencies that could be looked up.
const MODULES: [&str; 12] = [
    "virtio_pci",
    "virtio_blk",
    "9pnet_virtio",
    "9p",
    "crc32c_generic",
    "crc32c-intel",
    "chacha20",
    "poly1305",
    "sha256_generic",
    "sha256_ssse3",
    "sha256",
    "bcachefs",
];

/// The module without which there is nothing to ask.
const DRIVER: &str = "bcachefs.ko";

/// Parts of the package that the modules above come from; unpacking all of it takes several times as long.
const UNPACKED: [&str; 12] = [
    "*/vmlinuz-*",
    "*/modules/*/modules.*",
    "*/modules/*/kernel/arch/x86/crypto/*",
    "*/modules/*/kernel/arch/x86/lib/*",
    "*/modules/*/kernel/crypto/*",
    "*/modules/*/kernel/lib/*",
    "*/modules/*/kernel/fs/bcachefs/*",
    "*/modules/*/kernel/fs/9p/*",
    "*/modules/*/kernel/fs/netfs/*",
    "*/modules/*/kernel/net/9p/*",
    "*/modules/*/kernel/drivers/block/*",
    "*/modules/*/kernel/drivers/virtio/*",
];

/// A kernel in the cache.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Kernel {
    /// Its release, e.g. `6.12.38+deb13-amd64`.
    pub release: String,
    /// The boot image.
    pub image: PathBuf,
    /// The directory with the modules to load, in the order of their names.
    pub modules: PathBuf,
}

/// The kernel in the cache, or one that is fetched now.
pub(super) fn find_or_fetch(cache: &Path) -> Result<Kernel, OracleError> {
    let dir = cache.join("kernel");
    if !dir.is_dir() {
        let work = tempfile::tempdir_in(cache).map_err(OracleError::io(cache))?;
        let package = package(work.path())?;
        let ready = unpack(&package, work.path())?;
        // All or nothing: another process, or the next try after a failure, never sees half a kernel.
        std::fs::rename(&ready, &dir).map_err(OracleError::io(&dir))?;
    }
    let release_path = dir.join("release");
    let release = std::fs::read_to_string(&release_path).map_err(OracleError::io(&release_path))?;
    Ok(Kernel { release, image: dir.join("vmlinuz"), modules: dir.join("modules") })
}

/// The package: the file `$FRAZIL_ORACLE_KERNEL`, or the newest that apt knows, downloaded into `work`.
fn package(work: &Path) -> Result<PathBuf, OracleError> {
    if let Some(given) = std::env::var_os("FRAZIL_ORACLE_KERNEL") {
        return Ok(PathBuf::from(given));
    }
    let (search, get) = (find("apt-cache", "apt")?, find("apt-get", "apt")?);
    let listed =
        run(Command::new(search).args(["search", "--names-only", r"^linux-image-6\.12\.[0-9].*-amd64"]))?;
    let name = newest(&listed).ok_or(OracleError::NoKernel)?;
    run(Command::new(get).args(["download", "--quiet", &name]).current_dir(work))?;
    let entries = std::fs::read_dir(work).map_err(OracleError::io(work))?;
    let mut files = entries.filter_map(|entry| Some(entry.ok()?.path()));
    files.find(|path| path.extension().is_some_and(|ext| ext == "deb")).ok_or(OracleError::NoKernel)
}

/// Of the lines of `apt-cache search`, the name of the newest plain kernel, an unsigned one if there is one.
fn newest(listed: &str) -> Option<String> {
    let names = listed.lines().filter_map(|line| line.split_whitespace().next());
    let plain = |name: &&str| {
        let base = name.strip_suffix("-unsigned").unwrap_or(name);
        base.ends_with("-amd64") && !base.ends_with("-cloud-amd64") && !base.ends_with("-rt-amd64")
    };
    let age = |name: &&str| -> (bool, Vec<u64>) {
        let numbers =
            name.split(|c: char| !c.is_ascii_digit()).filter_map(|digits| digits.parse().ok()).collect();
        (name.ends_with("-unsigned"), numbers)
    };
    names.filter(plain).max_by_key(age).map(str::to_owned)
}

/// Unpacks what is used of the package; returns the directory that is to become the cache's.
fn unpack(package: &Path, work: &Path) -> Result<PathBuf, OracleError> {
    let root = work.join("root");
    std::fs::create_dir(&root).map_err(OracleError::io(&root))?;
    extract(package, &root)?;
    // On systems with a merged /usr the package has usr/lib; what reads modules wants lib.
    if root.join("usr/lib").is_dir() {
        std::fs::rename(root.join("usr/lib"), root.join("lib")).map_err(OracleError::io(&root))?;
    }
    let release = only_name_in(&root.join("lib/modules"))?;
    run(Command::new(find("depmod", "kmod")?).arg("-b").arg(&root).arg(&release))?;
    let ready = work.join("ready");
    let modules = ready.join("modules");
    std::fs::create_dir_all(&modules).map_err(OracleError::io(&modules))?;
    for (n, module) in load_order(&root, &release)?.iter().enumerate() {
        keep_module(module, n, &modules)?;
    }
    let image = root.join("boot").join(format!("vmlinuz-{release}"));
    std::fs::rename(&image, ready.join("vmlinuz")).map_err(OracleError::io(&image))?;
    std::fs::write(ready.join("release"), &release).map_err(OracleError::io(&ready))?;
    Ok(ready)
}

fn extract(package: &Path, root: &Path) -> Result<(), OracleError> {
    let (dpkg, tar) = (find("dpkg-deb", "dpkg")?, find("tar", "tar")?);
    let mut unpacker = Command::new(dpkg)
        .arg("--fsys-tarfile")
        .arg(package)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .map_err(OracleError::io("dpkg-deb"))?;
    let archive = unpacker.stdout.take().expect("its output was piped");
    // A pattern that matches nothing makes tar fail at its end; what is needed is checked afterwards.
    let tar = Command::new(tar)
        .args(["-x", "-f", "-", "--wildcards", "-C"])
        .arg(root)
        .args(UNPACKED)
        .stdin(archive)
        .stderr(Stdio::null())
        .status()
        .map_err(OracleError::io("tar"));
    let status = unpacker.wait().map_err(OracleError::io("dpkg-deb"))?;
    tar?;
    if !status.success() {
        return Err(OracleError::Tool {
            command: format!("dpkg-deb {}", package.display()),
            why: status.to_string(),
        });
    }
    Ok(())
}

fn only_name_in(dir: &Path) -> Result<String, OracleError> {
    let mut entries = std::fs::read_dir(dir).map_err(OracleError::io(dir))?;
    let first = entries.next().ok_or(OracleError::NoKernel)?.map_err(OracleError::io(dir))?;
    Ok(first.file_name().to_string_lossy().into_owned())
}

/// The modules' files, each behind those it depends on.
fn load_order(root: &Path, release: &str) -> Result<Vec<PathBuf>, OracleError> {
    let modprobe = find("modprobe", "kmod")?;
    let mut order: Vec<PathBuf> = Vec::new();
    for module in MODULES {
        // A module that this kernel has built in, or calls otherwise, is none to load.
        let mut query = Command::new(&modprobe);
        query.arg("-d").arg(root).args(["-S", release, "--show-depends", module]);
        let lines = run(&mut query).unwrap_or_default();
        for path in lines.lines().filter_map(|line| line.strip_prefix("insmod ")) {
            let path = PathBuf::from(path.trim());
            if !order.contains(&path) {
                order.push(path);
            }
        }
    }
    let is_driver =
        |path: &PathBuf| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(DRIVER));
    if order.iter().any(is_driver) { Ok(order) } else { Err(OracleError::NoKernel) }
}

/// Stores a module uncompressed under a name that tells its turn.
fn keep_module(module: &Path, turn: usize, modules: &Path) -> Result<(), OracleError> {
    let name = module.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let plain = name.strip_suffix(".xz").unwrap_or(&name);
    let target = modules.join(format!("{turn:03}-{plain}"));
    if plain == name {
        std::fs::copy(module, &target).map_err(OracleError::io(module))?;
        return Ok(());
    }
    let bytes = Command::new(find("xz", "xz-utils")?)
        .arg("-dc")
        .arg(module)
        .output()
        .map_err(OracleError::io(module))?;
    if !bytes.status.success() {
        return Err(OracleError::Tool {
            command: format!("xz -dc {}", module.display()),
            why: bytes.status.to_string(),
        });
    }
    std::fs::write(&target, bytes.stdout).map_err(OracleError::io(&target))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_plain_kernel_is_chosen() {
        let listed = "\
linux-image-6.12.9+deb12-amd64-unsigned - Linux 6.12 for 64-bit PCs
linux-image-6.12.117+deb12-amd64-unsigned - Linux 6.12 for 64-bit PCs
linux-image-6.12.117+deb12-rt-amd64-unsigned - Linux 6.12 for 64-bit PCs, PREEMPT_RT
linux-image-6.12.200+deb12-cloud-amd64 - Linux 6.12 for x86-64 cloud
linux-image-6.12.200+deb12-amd64-dbg - Debug symbols
linux-image-6.12.120+deb12-amd64 - Linux 6.12 for 64-bit PCs (signed)
";
        assert_eq!(newest(listed).as_deref(), Some("linux-image-6.12.117+deb12-amd64-unsigned"));
        assert_eq!(newest(""), None);
    }
}
