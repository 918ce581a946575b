//! The oracle at the command line. See `oracle help`, and `README.md` beside this crate.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use frazil_oracle::{Cut, Job, Mount, Oracle, OracleError, Verdict, Writes, guest, job};
use frazil_testing::golden;
use frazil_testing::manifest::Manifest;

/// Asks the real Linux 6.12 driver what it thinks of bcachefs images.
#[derive(Parser)]
#[command(name = "oracle", version)]
struct Cli {
    #[command(subcommand)]
    command: Question,
}

#[derive(Subcommand)]
enum Question {
    /// Mounts volumes in a virtual machine and prints what came of it as JSON. Exit status 1 if there is an objection
    Check(Check),
    /// Asks about golden images, and compares with their manifests: what others' code made and read must be praised
    Golden {
        /// Their names; without any, all that the driver's own version made
        names: Vec<String>,
    },
    /// Only makes everything ready: fetches the kernel, builds the initramfs
    Prepare,
    /// The part that runs in the machine
    #[command(hide = true)]
    Guest {
        /// The directory shared with the host
        shared: PathBuf,
    },
}

#[derive(Args)]
struct Check {
    /// Images; those of a volume of several devices are joined by colons
    #[arg(required = true)]
    volumes: Vec<String>,
    /// Options of a mount; may be given several times for several mounts in a row [default: fsck,fix_errors=no,noatime, then noatime]
    #[arg(short = 'o', long = "options", value_name = "OPTIONS", allow_hyphen_values = true)]
    options: Vec<String>,
    /// Runs this script in the last mount (see README.md)
    #[arg(long, value_name = "FILE")]
    script: Option<PathBuf>,
    /// Cuts the power when the script sets this mark
    #[arg(long, value_name = "MARK", requires = "script")]
    cut_at: Option<String>,
    /// Cuts the power so many milliseconds after the mark, or after the start of the script
    #[arg(long, value_name = "MS", requires = "script")]
    cut_after: Option<u64>,
    /// Lets the driver change the images
    #[arg(long, conflicts_with = "copy_to")]
    in_place: bool,
    /// Lets the driver change copies of the images in this directory
    #[arg(long, value_name = "DIR")]
    copy_to: Option<PathBuf>,
    /// What unlocks the volumes, in the first line of this file
    #[arg(long, value_name = "FILE")]
    passphrase_file: Option<PathBuf>,
    /// Compares the tree of the last mount with this manifest, or with that of a golden image (golden:NAME)
    #[arg(long, value_name = "MANIFEST")]
    expect: Option<String>,
    /// Writes the trees, as manifests, and the files that scripts left in $OUT, to this directory
    #[arg(long, value_name = "DIR")]
    files: Option<PathBuf>,
    /// How long each volume may take
    #[arg(long, value_name = "SECONDS", default_value_t = job::TIMEOUT.as_secs())]
    timeout: u64,
}

fn main() -> ExitCode {
    let answer = match Cli::parse().command {
        Question::Guest { shared } => return guest::run(&shared),
        Question::Prepare => Oracle::new().map(|oracle| {
            eprintln!("the oracle is ready: Linux {}", oracle.kernel_release());
            ExitCode::SUCCESS
        }),
        Question::Golden { names } => about_golden(&names),
        Question::Check(check) => check.run(),
    };
    answer.unwrap_or_else(|e| {
        eprintln!("error: {e}");
        ExitCode::from(2)
    })
}

/// The minor version of the format that the driver reads and writes; newer volumes it would convert.
const DRIVER_MINOR: u32 = 13;

fn about_golden(names: &[String]) -> Result<ExitCode, OracleError> {
    let images: Vec<_> = match names {
        [] => golden::all().into_iter().filter(|image| image.version.minor == DRIVER_MINOR).collect(),
        names => names.iter().map(|name| golden::image(name)).collect(),
    };
    let mut good = true;
    for verdict in Oracle::new()?.batch(images.iter().map(Job::golden))? {
        let objections = verdict.objections();
        println!("{}: {}", verdict.name, if objections.is_empty() { "good" } else { "objections" });
        objections.iter().for_each(|line| println!("    {}", line.replace('\n', "\n        ")));
        good &= objections.is_empty();
    }
    Ok(ExitCode::from(u8::from(!good)))
}

impl Check {
    fn run(&self) -> Result<ExitCode, OracleError> {
        let jobs = self.volumes.iter().map(|volume| self.job(volume)).collect::<Result<Vec<_>, _>>()?;
        let verdicts = Oracle::new()?.batch(jobs)?;
        println!("{}", serde_json::to_string_pretty(&verdicts).expect("a verdict has only JSON values"));
        let objections: Vec<_> = verdicts.iter().flat_map(Verdict::objections).collect();
        objections.iter().for_each(|line| eprintln!("{line}"));
        if let Some(dir) = &self.files {
            verdicts.iter().try_for_each(|verdict| hand_out(verdict, dir))?;
        }
        Ok(ExitCode::from(u8::from(!objections.is_empty())))
    }

    fn job(&self, volume: &str) -> Result<Job, OracleError> {
        let mut job = Job::new(volume, volume.split(':')).timeout(Duration::from_secs(self.timeout));
        let mut mounts: Vec<_> = self.options.iter().map(Mount::with).collect();
        if mounts.is_empty() {
            mounts = vec![Mount::fsck(), Mount::plain()];
        }
        let mut last = mounts.pop().expect("there is a mount").walk();
        if let Some(path) = &self.script {
            last = last.script(read(path)?);
        }
        if let Some(manifest) = &self.expect {
            last = last.expect_tree(expected(manifest)?);
        }
        for mount in mounts.into_iter().chain([last]) {
            job = job.mount(mount);
        }
        if let Some(path) = &self.passphrase_file {
            let text = read(path)?;
            job = job.passphrase(text.lines().next().unwrap_or_default());
        }
        if self.cut_at.is_some() || self.cut_after.is_some() {
            let delay = Duration::from_millis(self.cut_after.unwrap_or(0));
            job = job.cut(Cut { at_mark: self.cut_at.clone(), delay });
        }
        Ok(match &self.copy_to {
            Some(dir) => job.writes(Writes::Copy(dir.clone())),
            None if self.in_place => job.writes(Writes::InPlace),
            None => job,
        })
    }
}

fn read(path: &Path) -> Result<String, OracleError> {
    std::fs::read_to_string(path).map_err(|source| OracleError::Io { path: path.to_path_buf(), source })
}

fn expected(manifest: &str) -> Result<Manifest, OracleError> {
    match manifest.strip_prefix("golden:") {
        Some(name) => Ok(golden::image(name).manifest()),
        None => Manifest::parse(&read(Path::new(manifest))?)
            .map_err(|why| OracleError::Guest { what: manifest.to_owned(), why }),
    }
}

/// Writes what does not fit into the JSON: the tree, and the files of the script.
fn hand_out(verdict: &Verdict, dir: &Path) -> Result<(), OracleError> {
    let name = Path::new(verdict.name.split(':').next().unwrap_or_default());
    let dir = dir.join(name.file_stem().unwrap_or_default());
    let put = |name: &str, bytes: &[u8]| {
        let path = dir.join(name);
        std::fs::write(&path, bytes).map_err(|source| OracleError::Io { path, source })
    };
    std::fs::create_dir_all(&dir).map_err(|source| OracleError::Io { path: dir.clone(), source })?;
    if let Some(tree) = verdict.tree() {
        put("tree.jsonl", tree.to_text().as_bytes())?;
    }
    verdict.files.iter().try_for_each(|(name, bytes)| put(name, bytes))
}
