//! The question: a volume, and what to do with it.

use std::path::PathBuf;
use std::time::Duration;

use frazil_testing::golden::GoldenImage;
use frazil_testing::manifest::Manifest;

/// How long one job may take in the machine before it counts as hung, unless it says otherwise. An emulated machine on a
/// busy host is slow; this is a limit, not an expectation.
pub const TIMEOUT: Duration = Duration::from_secs(240);

/// What mounts of [`Job::check`] and most others are made with: a walk through the tree then changes no access time.
const QUIET: &str = "noatime";

/// One volume, and the mounts it goes through.
#[derive(Clone, Debug)]
pub struct Job {
    pub(crate) name: String,
    pub(crate) devices: Vec<PathBuf>,
    pub(crate) passphrase: Option<Vec<u8>>,
    pub(crate) writes: Writes,
    pub(crate) mounts: Vec<Mount>,
    pub(crate) cut: Option<Cut>,
    pub(crate) timeout: Duration,
}

/// Where the driver's writes go.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub enum Writes {
    /// Into thin air when the machine ends: the driver may write, the files keep every byte.
    #[default]
    Discard,
    /// Into the given files.
    InPlace,
    /// Into copies made in this directory under the same file names; the verdict says where.
    Copy(PathBuf),
}

/// One mount of the volume. The steps happen in the order of the methods below, then it is unmounted.
#[derive(Clone, Debug, Default)]
pub struct Mount {
    pub(crate) options: String,
    pub(crate) script: Option<String>,
    pub(crate) walk: bool,
    pub(crate) expected: Option<Manifest>,
}

/// The moment the machine loses its power. Every write the driver had completed by then is in the image, flushed or not;
/// of those it had started, any may be.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Cut {
    /// Name of the mark the script sets (`mark NAME`); without one the moment the script starts counts.
    pub at_mark: Option<String>,
    /// How long after that.
    pub delay: Duration,
}

impl Cut {
    /// As soon as the script has set this mark.
    pub fn at_mark(name: impl Into<String>) -> Cut {
        Cut { at_mark: Some(name.into()), delay: Duration::ZERO }
    }

    /// So long after the script was started.
    pub fn after(delay: Duration) -> Cut {
        Cut { at_mark: None, delay }
    }

    /// So much later than said.
    #[must_use]
    pub fn delayed(mut self, delay: Duration) -> Cut {
        self.delay += delay;
        self
    }
}

impl Job {
    /// A volume that nothing is done to yet. `devices` are its image files, in any order the driver takes; `name` is what
    /// the verdict calls it.
    pub fn new<D: Into<PathBuf>>(name: impl Into<String>, devices: impl IntoIterator<Item = D>) -> Job {
        Job {
            name: name.into(),
            devices: devices.into_iter().map(Into::into).collect(),
            passphrase: None,
            writes: Writes::default(),
            mounts: Vec::new(),
            cut: None,
            timeout: TIMEOUT,
        }
    }

    /// The usual question: a check that must find nothing (`fsck,fix_errors=no`), then a plain read-write mount whose tree
    /// is walked.
    pub fn check<D: Into<PathBuf>>(name: impl Into<String>, devices: impl IntoIterator<Item = D>) -> Job {
        Job::new(name, devices).mount(Mount::fsck()).mount(Mount::plain().walk())
    }

    /// As [`Job::check`], and the tree must be as `manifest` says.
    pub fn check_against<D: Into<PathBuf>>(
        name: impl Into<String>,
        devices: impl IntoIterator<Item = D>,
        manifest: Manifest,
    ) -> Job {
        Job::new(name, devices).mount(Mount::fsck()).mount(Mount::plain().walk().expect_tree(manifest))
    }

    /// [`Job::check_against`] about a golden image and its manifest.
    pub fn golden(image: &GoldenImage) -> Job {
        let job = Job::check_against(&image.name, image.unpack_for_machine(), image.manifest());
        match image.passphrase_bytes() {
            Some(passphrase) => job.passphrase(passphrase),
            None => job,
        }
    }

    /// Adds a mount.
    #[must_use]
    pub fn mount(mut self, mount: Mount) -> Job {
        self.mounts.push(mount);
        self
    }

    /// What unlocks the volume.
    #[must_use]
    pub fn passphrase(mut self, passphrase: impl Into<Vec<u8>>) -> Job {
        self.passphrase = Some(passphrase.into());
        self
    }

    /// Where the driver's writes go; nowhere unless this is called.
    #[must_use]
    pub fn writes(mut self, writes: Writes) -> Job {
        self.writes = writes;
        self
    }

    /// Cuts the power while the script of the last mount runs.
    #[must_use]
    pub fn cut(mut self, cut: Cut) -> Job {
        self.cut = Some(cut);
        self
    }

    /// How long the job may take ([`TIMEOUT`] unless this is called).
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Job {
        self.timeout = timeout;
        self
    }
}

impl Mount {
    /// A mount with these options, as `mount -o` takes them.
    pub fn with(options: impl Into<String>) -> Mount {
        Mount { options: options.into(), ..Mount::default() }
    }

    /// A plain read-write mount.
    pub fn plain() -> Mount {
        Mount::with(QUIET)
    }

    /// A mount that checks everything and repairs nothing.
    pub fn fsck() -> Mount {
        Mount::with(format!("fsck,fix_errors=no,{QUIET}"))
    }

    /// Runs a script, as root, in the mounted directory. One that starts with `#!` is executed, any other is run by
    /// `/bin/sh -eu` and can `mark NAME`. `$OUT` is a directory for files that are to come back.
    #[must_use]
    pub fn script(mut self, text: impl Into<String>) -> Mount {
        self.script = Some(text.into());
        self
    }

    /// Then walks the tree; the verdict has it as a manifest.
    #[must_use]
    pub fn walk(mut self) -> Mount {
        self.walk = true;
        self
    }

    /// Then compares the tree with a manifest, constraints included.
    #[must_use]
    pub fn expect_tree(mut self, manifest: Manifest) -> Mount {
        self.expected = Some(manifest);
        self
    }
}
