//! Many questions, few boots.
//!
//! Jobs that come to an end share a boot, as many as their disks fit. A job whose power is cut takes its machine with it, so it has
//! one of its own. When a job brings the kernel down or hangs, that is its verdict, and those behind it get another boot.

mod collect;
mod watch;

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::error::OracleError;
use crate::job::{Job, Mount, Writes};
use crate::machine::{DISKS_MAX, Disk, Machine};
use crate::prepare::{self, Prepared};
use crate::unlock;
use crate::verdict::{Outcome, Verdict};
use crate::wire::{self, Batch, GuestJob, GuestMount};

/// The real driver, ready to be asked.
#[derive(Clone, Debug)]
pub struct Oracle {
    prepared: Prepared,
}

/// A job and where it stands in the caller's list.
struct Pending {
    number: usize,
    job: Job,
    /// Its devices, whole paths: the copies if copies were asked for.
    devices: Vec<PathBuf>,
}

impl Oracle {
    /// Finds or prepares all that is needed ([`prepare::prepare`]). The first time, this takes a minute and downloads a kernel.
    ///
    /// # Errors
    /// What is missing and how to get it.
    pub fn new() -> Result<Oracle, OracleError> {
        Ok(Oracle { prepared: prepare::prepare()? })
    }

    /// The release of the kernel that answers.
    pub fn kernel_release(&self) -> &str {
        &self.prepared.kernel.release
    }

    /// Asks one question.
    ///
    /// # Errors
    /// As [`Self::batch`].
    pub fn ask(&self, job: Job) -> Result<Verdict, OracleError> {
        Ok(self.batch([job])?.pop().expect("a verdict per job"))
    }

    /// Asks many questions; the verdicts are in the order of the jobs. No machine is left behind, whatever happens.
    ///
    /// # Errors
    /// When the machine does not start, an image cannot be read or copied, or what the guest left behind makes no sense.
    /// What the driver does with an image, even if it crashes, is a verdict.
    pub fn batch(&self, jobs: impl IntoIterator<Item = Job>) -> Result<Vec<Verdict>, OracleError> {
        let mut waiting = VecDeque::new();
        for (number, job) in jobs.into_iter().enumerate() {
            if job.devices.len() > DISKS_MAX {
                let devices = job.devices.len();
                return Err(OracleError::TooManyDevices { name: job.name, devices, max: DISKS_MAX });
            }
            waiting.push_back(Pending { number, devices: place(&job)?, job });
        }
        let mut verdicts: Vec<Option<Verdict>> = waiting.iter().map(|_| None).collect();
        while !waiting.is_empty() {
            let mut boot = next_boot(&mut waiting);
            for (pending, verdict) in boot.iter().zip(self.boot(&boot)?) {
                verdicts[pending.number] = Some(verdict);
            }
            // Those that were not reached wait for the next boot. At least one was, or there would have been an error.
            boot.retain(|pending| verdicts[pending.number].is_none());
            boot.into_iter().rev().for_each(|pending| waiting.push_front(pending));
        }
        Ok(verdicts.into_iter().map(|verdict| verdict.expect("every job was asked")).collect())
    }

    /// Boots once; the verdicts of the jobs that were begun, at least one.
    fn boot(&self, jobs: &[Pending]) -> Result<Vec<Verdict>, OracleError> {
        let scratch = &self.prepared.scratch;
        let shared = tempfile::tempdir_in(scratch).map_err(OracleError::io(scratch))?;
        write_batch(&self.prepared, shared.path(), jobs)?;
        let disks: Vec<Disk> = jobs.iter().flat_map(disks).collect();
        let mut machine = Machine::start(&self.prepared, shared.path(), &disks)?;
        let end = watch::watch(&mut machine, jobs)?;
        drop(machine);
        collect::verdicts(shared.path(), jobs, end)
    }
}

/// Takes the next boot's jobs off the queue.
fn next_boot(waiting: &mut VecDeque<Pending>) -> Vec<Pending> {
    let mut boot: Vec<Pending> = Vec::new();
    let mut disks = 0;
    while let Some(next) = waiting.front() {
        let alone = next.job.cut.is_some();
        let fits = boot.is_empty() || (!alone && disks + next.devices.len() <= DISKS_MAX);
        if !fits {
            break;
        }
        disks += next.devices.len();
        boot.extend(waiting.pop_front());
        if alone {
            break;
        }
    }
    boot
}

fn disks(pending: &Pending) -> Vec<Disk> {
    let discard = pending.job.writes == Writes::Discard;
    pending.devices.iter().map(|file| Disk { file: file.clone(), discard }).collect()
}

/// The devices as the machine gets them, copied where that was asked for.
fn place(job: &Job) -> Result<Vec<PathBuf>, OracleError> {
    let whole = |path: &PathBuf| path.canonicalize().map_err(OracleError::io(path));
    let devices = job.devices.iter().map(whole).collect::<Result<Vec<_>, _>>()?;
    let Writes::Copy(dir) = &job.writes else { return Ok(devices) };
    let dir = dir.canonicalize().map_err(OracleError::io(dir))?;
    devices.iter().map(|device| copy_into(&dir, device)).collect()
}

/// A writable copy that keeps holes, and shares blocks where the filesystem can.
fn copy_into(dir: &Path, device: &Path) -> Result<PathBuf, OracleError> {
    let target = dir.join(device.file_name().unwrap_or_default());
    let mut cp = Command::new("cp");
    cp.args(["--sparse=always", "--reflink=auto", "--no-preserve=mode", "--"]).arg(device).arg(&target);
    prepare::run(&mut cp)?;
    Ok(target)
}

/// Writes everything the guest needs into the shared directory.
fn write_batch(prepared: &Prepared, shared: &Path, jobs: &[Pending]) -> Result<(), OracleError> {
    let program = shared.join(wire::PROGRAM);
    std::fs::copy(&prepared.program, &program).map_err(OracleError::io(&prepared.program))?;
    let mut first_disk = 0;
    let mut batch = Batch { jobs: Vec::new() };
    for (index, pending) in jobs.iter().enumerate() {
        let out = wire::out(shared, index);
        std::fs::create_dir(&out).map_err(OracleError::io(&out))?;
        for (number, mount) in pending.job.mounts.iter().enumerate() {
            write_mount(shared, index, number, mount)?;
        }
        batch.jobs.push(guest_job(index, pending, first_disk)?);
        first_disk += pending.devices.len();
    }
    let path = shared.join(wire::BATCH);
    let text = serde_json::to_vec(&batch).expect("a batch has only JSON values");
    std::fs::write(&path, text).map_err(OracleError::io(&path))
}

fn write_mount(shared: &Path, job: usize, number: usize, mount: &Mount) -> Result<(), OracleError> {
    let manifest = mount.expected.as_ref().map(|manifest| manifest.to_text());
    for (kind, text) in [("script", mount.script.as_ref()), ("expected", manifest.as_ref())] {
        if let Some(text) = text {
            let path = wire::file(shared, job, number, kind);
            std::fs::write(&path, text).map_err(OracleError::io(&path))?;
        }
    }
    Ok(())
}

fn guest_job(index: usize, pending: &Pending, first_disk: usize) -> Result<GuestJob, OracleError> {
    let disk = |n: usize| format!("/dev/vd{}", char::from(b'a' + u8::try_from(n).expect("at most 20 disks")));
    let disks: Vec<_> = (first_disk..first_disk + pending.devices.len()).map(disk).collect();
    let key = match (&pending.job.passphrase, pending.devices.first()) {
        (Some(passphrase), Some(device)) => unlock::keyring_key(device, passphrase)?,
        _ => None,
    };
    let mounts = pending.job.mounts.iter().map(|mount| GuestMount {
        options: mount.options.clone(),
        script: mount.script.is_some(),
        walk: mount.walk,
        compare: mount.expected.is_some(),
    });
    Ok(GuestJob { job: index, source: disks.join(":"), key, mounts: mounts.collect() })
}

/// How a boot ended, and at which of its jobs.
struct End {
    /// The last job that was begun.
    job: usize,
    /// What became of it.
    outcome: Outcome,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::job::Cut;

    fn pending(number: usize, disks: usize, cut: bool) -> Pending {
        let mut job = Job::new(number.to_string(), vec![PathBuf::from("x"); disks]);
        job.cut = cut.then(|| Cut::at_mark("now"));
        Pending { number, devices: job.devices.clone(), job }
    }

    #[test]
    fn boots_are_filled_and_power_cuts_are_alone() {
        let jobs = [(1, false), (10, false), (9, false), (1, false), (2, true), (1, true), (20, false)];
        let mut waiting: VecDeque<_> =
            jobs.iter().enumerate().map(|(n, &(disks, cut))| pending(n, disks, cut)).collect();
        let mut boots = Vec::new();
        while !waiting.is_empty() {
            boots.push(next_boot(&mut waiting).iter().map(|pending| pending.number).collect::<Vec<_>>());
        }
        assert_eq!(boots, [vec![0, 1, 2], vec![3], vec![4], vec![5], vec![6]]);
    }
}
