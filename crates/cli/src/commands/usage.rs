//! `frazil usage`: what a volume's space is used for.
//!
//! A mounted volume is asked through its control channel; another one is opened to be read. A device of a mounted volume leads to the mount.

use std::ffi::OsString;
use std::io::Write;
use std::path::{Path, PathBuf};

use frazil_device::mounts::{self, Mount};
use frazil_fuse::control::{
    BtreeUse, CompressionUse, DeviceReport, ReplicasUse, Request, UsageReport, locate, locate_inside,
};

use super::{Out, json_line};
use crate::format::{Shown, Size};
use crate::live::Live;
use crate::open::{OpenArgs, split_devices};
use crate::stop::{Done, Outcome, Stop};

/// Say what the space of a volume is used for
#[derive(clap::Args, Debug)]
#[command(
    override_usage = "frazil usage [OPTIONS] DIR|DEV...",
    after_help = "\
Sizes count all copies. `reserved` is promised by fallocate; `cached` may go at any time.

JSON fields, in bytes: uuid, space (total, used, free, available, data, btree, cached, reserved, inodes), replicas (data_type, required,
devices, bytes), compression (compression, extents, uncompressed, compressed), btrees (btree, bytes), devices (index, path, label, state,
size, bucket, used: data_type, buckets, bytes, fragmented).

Exit codes: 0 said; 1 it could not be found out; 2 wrong usage

Examples:
  frazil usage /mnt
  frazil usage --json /dev/sdb1:/dev/sdc1 | jq .space.used"
)]
pub(crate) struct Args {
    /// A directory in a mounted volume; or the devices or image files of one, one by one or joined by ":"
    #[arg(value_name = "DIR|DEV", required = true)]
    what: Vec<OsString>,
    /// One JSON object
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    open: OpenArgs,
}

pub(crate) fn run(args: &Args, out: &mut Out) -> Outcome {
    let report = match mounted(&args.what)? {
        Some(mount) => Live::of(mount)?.ask(&Request::Usage)?,
        None => {
            let volume = args.open.volume(&split_devices(&args.what))?;
            let usage = volume.usage().map_err(Stop::failed)?;
            UsageReport::of(volume.superblock(), volume.members(), volume.devices(), &usage)
        }
    };
    if args.json {
        json_line(out, &report)?;
    } else {
        show(&report, out)?;
    }
    Ok(Done::All)
}

/// The mount that is meant, or that has the devices.
fn mounted(what: &[OsString]) -> Result<Option<Mount>, Stop> {
    if let [one] = what {
        // A mount that hangs must not be touched, so that comes first.
        if let Ok(mount) = locate(Path::new(one)) {
            return Ok(Some(mount));
        }
        if Path::new(one).is_dir() {
            return Ok(Some(locate_inside(Path::new(one), true).map_err(Stop::failed)?.mount));
        }
    }
    let devices = split_devices(what);
    let wanted: Vec<PathBuf> = devices.iter().filter_map(|path| path.canonicalize().ok()).collect();
    let has = |mount: &Mount| {
        let sources = split_devices(&[OsString::from(&mount.source)]);
        mount.fs_type == "fuse.frazil" && wanted.iter().any(|path| sources.contains(path))
    };
    // Of a mount that can only be read everybody can read the devices, too, and as it was opened says more.
    Ok(mounts::table().into_iter().find(|mount| has(mount) && !mount.read_only))
}

fn show(report: &UsageReport, out: &mut Out) -> Result<(), Stop> {
    let space = &report.space;
    writeln!(out, "volume        {}", report.uuid)?;
    for (what, bytes) in [
        ("size", space.total),
        ("used", space.used),
        ("free", space.free),
        ("available", space.available),
        ("  data", space.data),
        ("  b-trees", space.btree),
        ("  reserved", space.reserved),
        ("  cached", space.cached),
    ] {
        writeln!(out, "{what:12}{:>12}", Size(bytes).to_string())?;
    }
    writeln!(out, "{:12}{:>12}", "inodes", space.inodes)?;
    if !report.replicas.is_empty() {
        writeln!(out, "\n{:12}{:>12}  copies on devices", "data", "size")?;
        report.replicas.iter().try_for_each(|used| replicas(used, out))?;
    }
    if !report.compression.is_empty() {
        writeln!(
            out,
            "\n{:12}{:>12}{:>12}{:>10}{:>10}",
            "compression", "before", "after", "ratio", "extents"
        )?;
        report.compression.iter().try_for_each(|used| compression(used, out))?;
    }
    if !report.btrees.is_empty() {
        writeln!(out, "\n{:22}{:>10}", "b-tree", "size")?;
        report.btrees.iter().try_for_each(|used| btree(used, out))?;
    }
    report.devices.iter().try_for_each(|of| device(of, out))
}

fn replicas(used: &ReplicasUse, out: &mut Out) -> Result<(), Stop> {
    let devices: Vec<String> = used.devices.iter().map(u8::to_string).collect();
    let required = if used.required > 1 { format!(", {} needed", used.required) } else { String::new() };
    let size = Size(used.bytes).to_string();
    writeln!(out, "{:12}{size:>12}  {}{required}", used.data_type, devices.join(" "))?;
    Ok(())
}

fn compression(used: &CompressionUse, out: &mut Out) -> Result<(), Stop> {
    let [before, after] = [used.uncompressed, used.compressed].map(|bytes| Size(bytes).to_string());
    let ratio = used.uncompressed as f64 / used.compressed.max(1) as f64;
    writeln!(out, "{:12}{before:>12}{after:>12}{ratio:>10.2}{:>10}", used.compression, used.extents)?;
    Ok(())
}

fn btree(used: &BtreeUse, out: &mut Out) -> Result<(), Stop> {
    writeln!(out, "{:22}{:>10}", used.btree, Size(used.bytes).to_string())?;
    Ok(())
}

fn device(device: &DeviceReport, out: &mut Out) -> Result<(), Stop> {
    let path = device.path.as_deref().unwrap_or("missing");
    let label = device.label.as_ref().map(|label| format!(" ({})", Shown(label.as_bytes())));
    writeln!(
        out,
        "\ndevice {}      {}{}, {}, {} in buckets of {}",
        device.index,
        Shown(path.as_bytes()),
        label.unwrap_or_default(),
        device.state,
        Size(device.size),
        Size(device.bucket)
    )?;
    writeln!(out, "  {:14}{:>10}{:>12}{:>12}", "data", "buckets", "size", "fragmented")?;
    for used in &device.used {
        let [size, fragmented] = [used.bytes, used.fragmented].map(|bytes| Size(bytes).to_string());
        writeln!(out, "  {:14}{:>10}{size:>12}{fragmented:>12}", used.data_type, used.buckets)?;
    }
    Ok(())
}
