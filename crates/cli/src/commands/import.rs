//! `frazil import`: copy a directory or a tar archive into a volume, without mounting it.
//!
//! There are two ways. A volume that holds nothing yet is made again with its options, its UUID and the tree, in one go, which is fast; until that
//! is done it is no volume, so a failure leaves nothing behind that looks like one. A volume that holds something is opened for
//! writing, and the tree is copied file by file, as through a mount.

use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use frazil_device::{Access, Device, OpenOptions as DeviceOptions};
use frazil_ondisk::checksum::EncryptionMode;
use frazil_ondisk::superblock::options::{self, Encoding, OptionSpec};
use frazil_ondisk::superblock::sections::DiskGroups;
use frazil_ondisk::version::Version;
use frazil_posix::write::WriteFs;
use frazil_posix::{FileType, Fs, NodeId, Visit, WalkStep};
use frazil_volume::build::{Builder, Encryption, FormatOptions, NewDevice};
use frazil_volume::{Recovery, Volume};

use crate::open::{LOCK_WAIT, OpenArgs, split_devices};
use crate::source;
use crate::stop::{Done, Outcome, Stop};

/// Copy a directory or a tar archive into a volume, without mounting it
#[derive(clap::Args, Debug)]
#[command(
    override_usage = "frazil import [OPTIONS] DEV... DIR|TAR",
    after_help = "\
Directories that are there already get the attributes of those that come; files that are there already are an error.

Examples:
  frazil import /dev/sdb1 /srv/www
  frazil import --to /backup /dev/sdb1 /srv/www
  frazil export old.img | frazil import new.img -"
)]
pub(crate) struct Args {
    /// The devices or image files of the volume, one by one or joined by ":"; then a directory or a tar archive ("-": one on standard input)
    #[arg(value_name = "DEV... DIR|TAR", required = true, num_args = 2..)]
    arguments: Vec<OsString>,
    /// Copy to below this directory of the volume [default: /]
    #[arg(long, value_name = "PATH")]
    to: Option<PathBuf>,
    #[command(flatten)]
    open: OpenArgs,
}

pub(crate) fn run(args: &Args) -> Outcome {
    let Some((source, devices)) = args.arguments.split_last() else {
        return Err(Stop::Usage("name the devices, and what is to be copied".into()));
    };
    let (source, paths) = (Path::new(source), split_devices(devices));
    let to = args.to.as_deref().unwrap_or(Path::new("/"));
    let is_top = to.components().all(|part| matches!(part, std::path::Component::RootDir));
    match if is_top { Plan::of(args.open.volume(&paths)?)? } else { None } {
        Some(plan) => plan.make(source)?,
        None => {
            let fs = args.open.live(&paths)?;
            let devices: Vec<&Path> = paths.iter().map(PathBuf::as_path).collect();
            let done = directory(&fs, to).and_then(|top| source::import(&fs, top, source, &devices));
            // Whether it worked or not, the volume is to be left clean.
            let stopped = fs.live().stop().map_err(Stop::failed);
            done.and(stopped)?;
        }
    }
    Ok(Done::All)
}

/// The directory at a path of the volume.
fn directory(fs: &WriteFs, path: &Path) -> Result<NodeId, Stop> {
    let failed = |why: &dyn std::fmt::Display| Stop::Failed(format!("{}: {why}", path.display()));
    let mut node = NodeId::ROOT;
    let names = path.as_os_str().as_bytes().split(|&byte| byte == b'/');
    for name in names.filter(|name| !matches!(*name, b"" | b".")) {
        let attr = fs.lookup(node, name).map_err(|why| failed(&why))?;
        if attr.kind != FileType::Directory {
            return Err(failed(&"not a directory"));
        }
        node = attr.node;
    }
    Ok(node)
}

/// An empty volume, as it would be made again.
struct Plan {
    options: FormatOptions,
    devices: Vec<Like>,
}

/// A member device, as it would be made again.
struct Like {
    path: PathBuf,
    bucket_bytes: u64,
    label: Option<String>,
    durability: u8,
    discard: bool,
}

impl Like {
    fn open(&self) -> Result<NewDevice, Stop> {
        let options = DeviceOptions::new(Access::ReadWrite).lock_wait(LOCK_WAIT);
        let device = options.open(&self.path).map_err(Stop::failed)?;
        Ok(NewDevice {
            device: Arc::new(device) as Arc<dyn Device>,
            bucket_bytes: Some(self.bucket_bytes),
            label: self.label.clone(),
            durability: self.durability,
            discard: self.discard,
        })
    }
}

impl Plan {
    /// Makes the volume again, with the tree.
    fn make(&self, source: &Path) -> Result<(), Stop> {
        let devices: Result<Vec<NewDevice>, Stop> = self.devices.iter().map(Like::open).collect();
        let mut builder = Builder::new(devices?, &self.options).map_err(Stop::failed)?;
        builder.push_first_subvolume().map_err(Stop::failed)?;
        let paths: Vec<&Path> = self.devices.iter().map(|device| device.path.as_path()).collect();
        source::fill(&mut builder, source, &paths)?;
        builder.finish().map_err(Stop::failed)?;
        Ok(())
    }

    /// How to make this volume again; `None` if it holds something, or has what would not come back. It is closed.
    fn of(volume: Volume) -> Result<Option<Plan>, Stop> {
        let sb = volume.superblock();
        if sb.version != Version::INODE_HAS_CHILD_SNAPSHOTS || sb.encryption() != EncryptionMode::Off {
            return Ok(None);
        }
        let groups = sb.sections.get::<DiskGroups>().map_err(Stop::failed)?.unwrap_or_default();
        let mut devices = Vec::new();
        for (index, member) in volume.members().live() {
            let Some(device) = volume.devices().get(index.0) else { return Ok(None) };
            devices.push(Like {
                path: PathBuf::from(&**device.name()),
                bucket_bytes: member.bucket_size().to_bytes().unwrap_or(u64::MAX),
                label: member.flags.group().and_then(|group| groups.path(group)),
                durability: member.flags.durability(),
                discard: member.flags.discard(),
            });
        }
        let stored = options::ALL.iter().filter(|spec| spec.applies_to(sb.version));
        let (targets, settings): (Vec<&OptionSpec>, Vec<&OptionSpec>) =
            stored.partition(|spec| spec.encoding == Encoding::Target);
        let name = |spec: &'static OptionSpec| {
            let target = sb.target(spec);
            (target != options::Target::None).then(|| sb.target_name(target).map(|name| (spec, name)))
        };
        let options = FormatOptions {
            uuid: Some(sb.user_uuid),
            label: sb.label(),
            created_ns: sb.time_base().base_ns,
            encryption: Encryption::Off,
            settings: settings.into_iter().map(|spec| (spec, sb.option(spec))).collect(),
            targets: targets.into_iter().filter_map(name).collect::<Result<_, _>>().map_err(Stop::failed)?,
            superblock_bytes: sb.layout.copy_sectors().to_bytes(),
            force: true,
        };
        let never_started = matches!(volume.recovery(), Recovery::NeverStarted);
        let fs = Fs::new(Arc::new(volume));
        Ok((never_started || is_empty(&fs)?).then_some(Plan { options, devices }))
    }
}

/// There is nothing but the root directory and an empty `lost+found`.
fn is_empty(fs: &Fs) -> Result<bool, Stop> {
    let mut others = fs.subvolumes().map_err(Stop::failed)?.len() - 1;
    fs.walk(fs.root(), &mut |path, visit| {
        let expected = matches!(visit, Visit::Object(_)) && matches!(path, b"" | b"lost+found");
        others += usize::from(!expected);
        if expected { WalkStep::Continue } else { WalkStep::Stop }
    });
    Ok(others == 0)
}
