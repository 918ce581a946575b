//! `frazil format`: make a volume.
//!
//! Regular files serve as well as block devices, and are made if a size is given. What is there already is not overwritten unless forced.
//! On success there is one line per device, with the volume's UUID; nothing else is printed.
//!
//! Options about single devices are given once for all of them, or once for each, in the order of the devices.

use std::fs::Metadata;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use clap::builder::PossibleValuesParser;
use frazil_device::{Access, Device, FileDevice, OpenOptions as DeviceOptions};
use frazil_ondisk::superblock::Superblock;
use frazil_ondisk::superblock::options::{self, Encoding, OptionSpec};
use frazil_volume::build::{self, Builder, Encryption, FormatOptions, NewDevice};
use uuid::Uuid;

use super::Out;
use crate::format::{Size, parse_size};
use crate::open::{Devices, LOCK_WAIT, read_new_passphrase};
use crate::source;
use crate::stop::{Done, Outcome, Stop};

/// Make a volume; what is on the devices is lost
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Sizes are bytes, or have a unit: 4k, 512M, 1G. Other options by name: frazil show-super lists them all.
With --uuid, and SOURCE_DATE_EPOCH in the environment, equal input makes equal bytes (encrypted volumes never are).
Of a directory everything is copied that the system shows of it: as root more than as anybody else.

Examples:
  frazil format --size 1G disk.img
  frazil format --compression zstd:3 --fs-label backup /dev/sdb1
  frazil format --size 4G --source rootfs/ disk.img
  frazil format --encrypted /dev/sdb1
  frazil format --replicas 2 /dev/sdb1 /dev/sdc1
  frazil format --label ssd /dev/nvme0n1 --label hdd /dev/sda --foreground-target ssd --background-target hdd")]
pub(crate) struct Args {
    #[command(flatten)]
    devices: Devices,
    /// Make regular files of this size, which take space only as they are filled
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    size: Option<u64>,
    /// Overwrite what is there
    #[arg(short, long)]
    force: bool,
    /// Print nothing
    #[arg(short, long)]
    quiet: bool,
    /// Copy this directory into it, or this tar archive ("-": one on standard input)
    #[arg(long, value_name = "DIR|TAR")]
    source: Option<PathBuf>,
    /// Label of the volume, at most 31 bytes
    #[arg(short = 'L', long, value_name = "LABEL")]
    fs_label: Option<String>,
    /// UUID of the volume [default: random]
    #[arg(short = 'U', long, value_name = "UUID")]
    uuid: Option<Uuid>,
    /// Any option of the superblock, such as acl=0; may be repeated
    #[arg(short, long = "option", value_name = "NAME=VALUE", value_parser = parse_setting)]
    options: Vec<Setting>,
    #[command(flatten)]
    sizes: Sizes,
    #[command(flatten)]
    data: Data,
    #[command(flatten)]
    encryption: EncryptionArgs,
    #[command(flatten)]
    per_device: PerDevice,
    #[command(flatten)]
    targets: Targets,
}

#[derive(clap::Args, Debug)]
#[command(next_help_heading = "Sizes")]
struct Sizes {
    /// Unit of files and metadata, 512 to 4096 bytes [default: 4096]
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    block_size: Option<u64>,
    /// Unit in which space is handed out [default: by the size of the device, 128K to 1M]
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    bucket_size: Option<u64>,
    /// Size of b-tree nodes, 32K to 512K [default: 256K, or a bucket]
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    btree_node_size: Option<u64>,
    /// Space for each copy of the superblock [default: 1M]
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    superblock_size: Option<u64>,
}

#[derive(clap::Args, Debug)]
#[command(next_help_heading = "Data and metadata")]
struct Data {
    /// Compress data: lz4, gzip or zstd, and a level up to 15 [default: none]
    #[arg(long, value_name = "TYPE[:LEVEL]", value_parser = setting(&options::COMPRESSION))]
    compression: Option<u64>,
    /// Compress data later, while the volume is in use [default: none]
    #[arg(long, value_name = "TYPE[:LEVEL]", value_parser = setting(&options::BACKGROUND_COMPRESSION))]
    background_compression: Option<u64>,
    /// Checksum of data [default: crc32c]
    #[arg(long, value_name = "TYPE", value_parser = choices(&options::DATA_CHECKSUM))]
    data_checksum: Option<String>,
    /// Checksum of metadata [default: crc32c]
    #[arg(long, value_name = "TYPE", value_parser = choices(&options::METADATA_CHECKSUM))]
    metadata_checksum: Option<String>,
    /// Hash of names in directories [default: siphash]
    #[arg(long, value_name = "TYPE", value_parser = choices(&options::STR_HASH))]
    str_hash: Option<String>,
    /// Copies of data and metadata, on different devices [default: 1]
    #[arg(long, value_name = "N")]
    replicas: Option<u64>,
    /// Copies of data
    #[arg(long, value_name = "N")]
    data_replicas: Option<u64>,
    /// Copies of metadata
    #[arg(long, value_name = "N")]
    metadata_replicas: Option<u64>,
}

#[derive(clap::Args, Debug)]
#[command(next_help_heading = "Encryption")]
struct EncryptionArgs {
    /// Encrypt everything; asks for a passphrase
    #[arg(long)]
    encrypted: bool,
    /// Read the passphrase from FILE ("-": standard input) instead of asking for it
    #[arg(long, value_name = "FILE", requires = "encrypted")]
    passphrase_file: Option<PathBuf>,
    /// Leave the key in clear, to set a passphrase later
    #[arg(long, requires = "encrypted", conflicts_with = "passphrase_file")]
    no_passphrase: bool,
}

#[derive(clap::Args, Debug)]
#[command(next_help_heading = "Devices (each: once for all, or once for each)")]
struct PerDevice {
    /// Label of the device, such as ssd.one, by which targets name it
    #[arg(long, value_name = "LABEL")]
    label: Vec<String>,
    /// How many copies a copy here counts as; 0: only a cache [default: 1]
    #[arg(long, value_name = "0..2")]
    durability: Vec<u8>,
    /// Tell the devices what is no longer used, now and later
    #[arg(long)]
    discard: bool,
}

#[derive(clap::Args, Debug)]
#[command(next_help_heading = "Targets (devices or labels)")]
struct Targets {
    /// Where new data go first
    #[arg(long, value_name = "TARGET")]
    foreground_target: Option<String>,
    /// Where data are moved later
    #[arg(long, value_name = "TARGET")]
    background_target: Option<String>,
    /// Where data that are read often are copied
    #[arg(long, value_name = "TARGET")]
    promote_target: Option<String>,
    /// Where metadata go
    #[arg(long, value_name = "TARGET")]
    metadata_target: Option<String>,
}

/// An option of the superblock and its value.
#[derive(Clone, Copy, Debug)]
struct Setting(&'static OptionSpec, u64);

fn parse_setting(text: &str) -> Result<Setting, String> {
    let (name, value) = text.split_once('=').ok_or("write NAME=VALUE")?;
    let spec = OptionSpec::by_name(name).ok_or_else(|| format!("there is no option '{name}'"))?;
    if spec.encoding == Encoding::Target {
        return Err(format!("write --{} {value}", name.replace('_', "-")));
    }
    Ok(Setting(spec, spec.parse(value).map_err(|why| why.to_string())?))
}

/// A parser of an option's values.
fn setting(
    spec: &'static OptionSpec,
) -> impl Fn(&str) -> Result<u64, String> + Clone + Send + Sync + 'static {
    |text| spec.parse(text).map_err(|why| why.to_string())
}

/// A parser of the names an option can have as value.
fn choices(spec: &'static OptionSpec) -> PossibleValuesParser {
    match spec.encoding {
        Encoding::Choice(names) => PossibleValuesParser::new(names.iter().copied()),
        _ => PossibleValuesParser::new([""; 0]),
    }
}

pub(crate) fn run(args: &Args, out: &mut Out) -> Outcome {
    let mut options = args.options()?;
    let paths = args.devices.paths();
    let mut files = Files::open(&paths, args)?;
    options.encryption = args.encryption(paths.first().map(PathBuf::as_path))?;
    let sb = args.build(&files, &options)?;
    files.are_volume = true;
    if !args.quiet {
        report(&files, &sb, out)?;
    }
    Ok(Done::All)
}

fn report(files: &Files, sb: &Superblock, out: &mut Out) -> Result<(), Stop> {
    let members = sb.members().map_err(Stop::failed)?;
    for (file, member) in files.list.iter().zip(&members.list) {
        let bucket = Size(member.bucket_size().0 * 512);
        writeln!(
            out,
            "{}: bcachefs {}.{}, {} in {} buckets of {bucket}, UUID {}",
            file.device.name(),
            sb.version.major(),
            sb.version.minor(),
            Size(file.device.size_bytes()),
            member.nbuckets,
            sb.user_uuid
        )?;
    }
    Ok(())
}

impl Args {
    fn build(&self, files: &Files, options: &FormatOptions) -> Result<Superblock, Stop> {
        let per_device = &self.per_device;
        let mut devices = Vec::new();
        for (i, file) in files.list.iter().enumerate() {
            devices.push(NewDevice {
                device: Arc::clone(&file.device) as Arc<dyn Device>,
                bucket_bytes: self.sizes.bucket_size,
                label: of_device("--label", &per_device.label, i, files.list.len())?.cloned(),
                durability: of_device("--durability", &per_device.durability, i, files.list.len())?
                    .copied()
                    .unwrap_or(1),
                discard: per_device.discard,
            });
        }
        let mut builder = Builder::new(devices, options).map_err(Stop::failed)?;
        builder.push_first_subvolume().map_err(Stop::failed)?;
        match &self.source {
            Some(source) => {
                let devices: Vec<&Path> = files.list.iter().map(|file| file.path.as_path()).collect();
                source::fill(&mut builder, source, &devices)?;
            }
            None => builder.push_empty_root().map_err(Stop::failed)?,
        }
        Ok(builder.finish().map_err(Stop::failed)?.superblock)
    }

    /// Everything but encryption.
    fn options(&self) -> Result<FormatOptions, Stop> {
        let data = &self.data;
        let mut settings: Vec<(&'static OptionSpec, u64)> = Vec::new();
        let numbers = [
            (&options::BLOCK_SIZE, self.sizes.block_size),
            (&options::BTREE_NODE_SIZE, self.sizes.btree_node_size),
            (&options::COMPRESSION, data.compression),
            (&options::BACKGROUND_COMPRESSION, data.background_compression),
            (&options::DATA_REPLICAS, data.data_replicas.or(data.replicas)),
            (&options::METADATA_REPLICAS, data.metadata_replicas.or(data.replicas)),
        ];
        let choices = [
            (&options::DATA_CHECKSUM, &data.data_checksum),
            (&options::METADATA_CHECKSUM, &data.metadata_checksum),
            (&options::STR_HASH, &data.str_hash),
        ];
        for (spec, value) in numbers {
            if let Some(value) = value {
                spec.check(value).map_err(|why| Stop::Usage(why.to_string()))?;
                settings.push((spec, value));
            }
        }
        for (spec, text) in choices {
            if let Some(text) = text {
                settings.push((spec, spec.parse(text).map_err(|why| Stop::Usage(why.to_string()))?));
            }
        }
        settings.extend(self.options.iter().map(|s| (s.0, s.1)));
        let targets = [
            (&options::FOREGROUND_TARGET, &self.targets.foreground_target),
            (&options::BACKGROUND_TARGET, &self.targets.background_target),
            (&options::PROMOTE_TARGET, &self.targets.promote_target),
            (&options::METADATA_TARGET, &self.targets.metadata_target),
        ];
        let targets = targets.into_iter().filter_map(|(spec, name)| Some((spec, name.clone()?)));
        Ok(FormatOptions {
            uuid: self.uuid,
            label: self.fs_label.clone().unwrap_or_default(),
            created_ns: now_ns()?,
            encryption: Encryption::Off,
            settings,
            targets: targets.collect(),
            superblock_bytes: self.sizes.superblock_size,
            force: self.force,
        })
    }

    fn encryption(&self, first: Option<&Path>) -> Result<Encryption, Stop> {
        let EncryptionArgs { encrypted, passphrase_file, no_passphrase } = &self.encryption;
        if !encrypted {
            return Ok(Encryption::Off);
        }
        if *no_passphrase {
            return Ok(Encryption::KeyInClear);
        }
        let name = first.unwrap_or(Path::new("the new volume")).display().to_string();
        let passphrase = read_new_passphrase(passphrase_file.as_deref(), &name);
        passphrase.map(Encryption::Passphrase).map_err(|why| Stop::Failed(format!("no passphrase: {why}")))
    }
}

/// The value for the device at `index` of `devices`.
fn of_device<'v, T>(
    what: &str,
    values: &'v [T],
    index: usize,
    devices: usize,
) -> Result<Option<&'v T>, Stop> {
    match values.len() {
        0 | 1 => Ok(values.first()),
        n if n == devices => Ok(values.get(index)),
        n => Err(Stop::Usage(format!(
            "{what} is given {n} times for {devices} devices; give it once for all, or once for each"
        ))),
    }
}

/// The time of creation: now, unless the environment asks for a reproducible one.
fn now_ns() -> Result<u64, Stop> {
    const VARIABLE: &str = "SOURCE_DATE_EPOCH";
    let bad = || Stop::Usage(format!("{VARIABLE} must be seconds since 1970"));
    if let Some(text) = std::env::var_os(VARIABLE) {
        let seconds = text.to_str().and_then(|text| text.trim().parse::<u64>().ok()).ok_or_else(bad)?;
        return seconds.checked_mul(1_000_000_000).ok_or_else(bad);
    }
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Ok(u64::try_from(now.as_nanos()).unwrap_or(u64::MAX))
}

/// A device to be formatted.
struct NewFile {
    path: PathBuf,
    device: Arc<FileDevice>,
    /// It was made by us.
    is_new: bool,
}

/// The devices. Those that were made here are removed again if they do not become a volume.
struct Files {
    list: Vec<NewFile>,
    are_volume: bool,
}

impl Files {
    /// Opens the devices, makes files that do not exist, and gives regular files their size.
    fn open(paths: &[PathBuf], args: &Args) -> Result<Files, Stop> {
        let mut files = Files { list: Vec::new(), are_volume: false };
        for path in paths {
            files.list.push(NewFile::open(path, args)?);
        }
        Ok(files)
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        for file in self.list.iter().filter(|file| file.is_new && !self.are_volume) {
            // There is an error to report already.
            let _ = std::fs::remove_file(&file.path);
        }
    }
}

impl NewFile {
    fn open(path: &Path, args: &Args) -> Result<NewFile, Stop> {
        let name = path.display();
        let before: Option<Metadata> = std::fs::metadata(path).ok();
        let mut options = DeviceOptions::new(Access::ReadWrite).lock_wait(LOCK_WAIT);
        match (&before, args.size) {
            (None, None) => {
                return Err(Stop::Failed(format!(
                    "{name} does not exist; to make it, say how large: --size 1G"
                )));
            }
            (Some(meta), Some(_)) if !meta.is_file() => {
                return Err(Stop::Failed(format!("--size is for regular files, and {name} is none")));
            }
            (_, Some(size)) => options = options.create_bytes(size),
            (Some(_), None) => {}
        }
        let device = Arc::new(options.open(path).map_err(|why| {
            // A file may be made and then not get its size.
            if before.is_none() && std::fs::metadata(path).is_ok_and(|meta| meta.len() == 0) {
                let _ = std::fs::remove_file(path);
            }
            Stop::failed(why)
        })?);
        let file = NewFile { path: path.to_path_buf(), device, is_new: before.is_none() };
        if !file.is_new && !file.device.is_block_device() {
            file.empty(args)?;
        }
        Ok(file)
    }

    /// Forgets everything in a regular file, so that it takes no space, and gives it its size.
    fn empty(&self, args: &Args) -> Result<(), Stop> {
        if !args.force {
            build::refuse_used(&*self.device).map_err(Stop::failed)?;
        }
        let size = args.size.unwrap_or(self.device.size_bytes());
        self.device.set_size(0).and_then(|()| self.device.set_size(size)).map_err(Stop::failed)
    }
}
