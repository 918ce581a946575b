//! Mount options, as they stand behind `-o` and in `/etc/fstab`.
//!
//! An option that is not known is refused by its name: whoever wrote it counts on what it does. Some are known and do nothing
//! here: those that other programs look at (`noauto`, `nofail`, `x-…`).

use std::path::PathBuf;
use std::time::Duration;

use frazil_fuse::Accesses;
use frazil_journal::engine::NoSpace;
use frazil_posix::write::{AccessTimes, QuotaKind};
use frazil_volume::lifecycle::OnError;

use crate::format::parse_seconds;
use crate::open::{Missing, OpenArgs, parse_cache};
use crate::stop::Stop;

/// Options that mean something to mount(8), systemd or a person, and those about access times that are so anyhow.
const WITHOUT_EFFECT: [&str; 15] = [
    "defaults",
    "auto",
    "noauto",
    "user",
    "nouser",
    "users",
    "owner",
    "group",
    "nofail",
    "_netdev",
    "async",
    "norelatime",
    "nostrictatime",
    "lazytime",
    "nolazytime",
];

/// How long it is waited for room on a thin device with `device_full=fail`.
const DEVICE_FULL_MAX: Duration = Duration::from_secs(30);

/// The text of the help about them.
pub(super) const HELP: &str = "\
Options for -o, with commas between:
  ro                     read only; so it is if neither is said
  rw                     to be changed, too; nobody else may have the devices meanwhile
  degraded               without missing devices, if a copy of everything is there
  very_degraded          even if not: what is lost reads as an error
  passphrase_file=FILE   where the passphrase of an encrypted volume is, instead of asking for it
  cache=SIZE             memory for b-tree nodes
  no_splitbrain_check    use devices that were changed apart from each other
  salvage_journal        use a damaged journal as far as it goes
  errors=WHAT            with rw, when metadata turns out to be damaged: continue, ro (nothing is written any more) or panic
                         (the serving process ends at once); as the volume says if it is not given
  device_full=WHAT       with rw, when a thin device has no room: wait, or fail, after 30 seconds or the given time: fail:SECONDS
  usrquota, grpquota,    with rw: quotas of users, groups, projects are on whatever the volume says; also off, with a no in front, or with
  prjquota               =1 and =0. quota is usrquota
  allow_other            let other users in (root does by default: no_allow_other)
  nosuid, nodev, noexec  as for mount(8)
  relatime, strictatime  with rw: note when files are opened for reading, at most once a day unless they changed, or always. It costs
                         each open a request; so without these nothing is noted (noatime)
  nodiratime             not of directories, but of files (relatime, unless another one is given)
  remount                with ro: no changes from now on; with rw: again, if it was mounted so
  log=FILE               append messages to FILE, beside the system log
Those that only mount(8) and systemd look at are accepted.";

/// What the options say.
#[derive(Debug, Default)]
pub(super) struct MountOptions {
    pub(super) open: OpenArgs,
    pub(super) allow_other: Option<bool>,
    pub(super) suid: Option<bool>,
    pub(super) dev: Option<bool>,
    pub(super) exec: Option<bool>,
    access_times: Option<AccessTimes>,
    nodiratime: bool,
    pub(super) log: Option<PathBuf>,
    /// Whether a volume that is mounted is to be mounted otherwise.
    pub(super) remount: bool,
    /// Whether it was said that it is to be changed, or is not.
    pub(super) read_write: Option<bool>,
}

impl MountOptions {
    /// Reads comma-separated lists; `sloppy` passes over what is not known. Of options that contradict each other the last one
    /// counts.
    pub(super) fn parse<'t>(lists: impl IntoIterator<Item = &'t str>, sloppy: bool) -> Result<Self, Stop> {
        let open = OpenArgs { as_mount_options: true, ..OpenArgs::default() };
        let mut options = MountOptions { open, ..MountOptions::default() };
        let lists: Vec<_> = lists.into_iter().collect();
        // mount(8) then gives all options that the mount has, the kernel's own among them.
        options.remount = lists.iter().flat_map(|list| list.split(',')).any(|option| option == "remount");
        let sloppy = sloppy || options.remount;
        for option in lists.iter().flat_map(|list| list.split(',')).filter(|option| !option.is_empty()) {
            match option {
                "rw" => options.read_write = Some(true),
                "ro" => options.read_write = Some(false),
                option => options.apply(option, sloppy)?,
            }
        }
        Ok(options)
    }

    /// Whose reading is noted. Who wants nothing to be noted of directories wants something to be noted.
    pub(super) fn accesses(&self) -> Accesses {
        let unsaid = if self.nodiratime { AccessTimes::Relative } else { AccessTimes::Never };
        Accesses { files: self.access_times.unwrap_or(unsaid), directories: !self.nodiratime }
    }

    fn apply(&mut self, option: &str, sloppy: bool) -> Result<(), Stop> {
        let (name, value) = match option.split_once('=') {
            Some((name, value)) => (name, Some(value)),
            None => (option, None),
        };
        if let Some((kind, is_on)) = quota(name, value)? {
            self.open.quotas.0[kind as usize] = Some(is_on);
            return Ok(());
        }
        match (name, value) {
            ("degraded", None) => self.open.degraded = Some(Missing::Yes),
            ("very_degraded", None) => self.open.degraded = Some(Missing::Very),
            ("passphrase_file", Some(file)) => self.open.passphrase_file = Some(file.into()),
            ("cache", Some(size)) => {
                self.open.cache =
                    Some(parse_cache(size).map_err(|why| Stop::Usage(format!("option cache: {why}")))?);
            }
            ("errors", Some(what)) => self.open.on_error = Some(on_error(what)?),
            ("device_full", Some(what)) => self.open.device_full = Some(device_full(what)?),
            ("no_splitbrain_check", None) => self.open.no_splitbrain_check = true,
            ("salvage_journal", None) => self.open.salvage_journal = true,
            ("allow_other", None) => self.allow_other = Some(true),
            ("no_allow_other", None) => self.allow_other = Some(false),
            ("suid", None) => self.suid = Some(true),
            ("nosuid", None) => self.suid = Some(false),
            ("dev", None) => self.dev = Some(true),
            ("nodev", None) => self.dev = Some(false),
            ("exec", None) => self.exec = Some(true),
            ("noexec", None) => self.exec = Some(false),
            ("noatime", None) => self.access_times = Some(AccessTimes::Never),
            ("atime" | "relatime", None) => self.access_times = Some(AccessTimes::Relative),
            ("strictatime", None) => self.access_times = Some(AccessTimes::Always),
            ("nodiratime", None) => self.nodiratime = true,
            ("diratime", None) => self.nodiratime = false,
            ("log", Some(file)) => self.log = Some(file.into()),
            (name, None) if WITHOUT_EFFECT.contains(&name) => {}
            ("comment", Some(_)) => {}
            (name, _) if name.starts_with("x-") || name.starts_with("X-") => {}
            _ if sloppy => {}
            _ => {
                let option = option.escape_debug();
                return Err(Stop::Usage(format!(
                    "unknown mount option '{option}'; see: frazil mount --help"
                )));
            }
        }
        Ok(())
    }
}

/// The kind of quotas that an option is about, and whether they are to be on; `None` if it is about something else (spec 10 §8).
fn quota(name: &str, value: Option<&str>) -> Result<Option<(QuotaKind, bool)>, Stop> {
    let (positive, negated) = match name.strip_prefix("no") {
        Some(rest) => (rest, true),
        None => (name, false),
    };
    let kind = match positive {
        "quota" | "usrquota" => QuotaKind::User,
        "grpquota" => QuotaKind::Group,
        "prjquota" => QuotaKind::Project,
        _ => return Ok(None),
    };
    match value {
        None => Ok(Some((kind, !negated))),
        Some("1") if !negated => Ok(Some((kind, true))),
        Some("0") if !negated => Ok(Some((kind, false))),
        Some(value) => {
            let value = value.escape_debug();
            Err(Stop::Usage(format!("option {name}: '{value}' is neither 0 nor 1, and 'no' takes no value")))
        }
    }
}

fn on_error(what: &str) -> Result<OnError, Stop> {
    match what {
        "continue" => Ok(OnError::Continue),
        // Nothing is repaired while it is mounted.
        "ro" | "fix_safe" => Ok(OnError::ReadOnly),
        "panic" => Ok(OnError::Panic),
        other => Err(Stop::Usage(format!(
            "option errors: '{}' is none of continue, ro, panic",
            other.escape_debug()
        ))),
    }
}

fn device_full(what: &str) -> Result<NoSpace, Stop> {
    match what.split_once(':') {
        None if what == "wait" => Ok(NoSpace::Wait),
        None if what == "fail" => Ok(NoSpace::FailAfter(DEVICE_FULL_MAX)),
        Some(("fail", seconds)) => parse_seconds(seconds)
            .map(NoSpace::FailAfter)
            .map_err(|why| Stop::Usage(format!("option device_full: {why}"))),
        _ => Err(Stop::Usage(format!(
            "option device_full: '{}' is neither wait nor fail",
            what.escape_debug()
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<MountOptions, String> {
        MountOptions::parse([text], false).map_err(|stop| format!("{stop:?}"))
    }

    #[test]
    fn options_are_understood() {
        let options =
            parse("ro,degraded,noatime,cache=1G,passphrase_file=/k,nosuid,allow_other,log=/l,x-a=b,,")
                .unwrap();
        assert_eq!(options.open.degraded, Some(Missing::Yes));
        assert_eq!(options.open.cache, Some(1 << 30));
        assert_eq!(options.open.passphrase_file, Some("/k".into()));
        assert_eq!((options.suid, options.dev, options.allow_other), (Some(false), None, Some(true)));
        assert_eq!(options.log, Some("/l".into()));
        assert!(options.open.as_mount_options);
    }

    #[test]
    fn policies_are_understood() {
        let open = |text: &str| parse(text).map(|options| options.open);
        assert_eq!(open("rw").unwrap().on_error, None);
        for (what, meant) in [
            ("continue", OnError::Continue),
            ("ro", OnError::ReadOnly),
            ("fix_safe", OnError::ReadOnly),
            ("panic", OnError::Panic),
        ] {
            assert_eq!(open(&format!("errors={what}")).unwrap().on_error, Some(meant));
        }
        assert!(open("errors=remount-ro").unwrap_err().contains("none of continue, ro, panic"));
        let full = |what: &str| open(&format!("device_full={what}")).map(|open| open.device_full);
        assert_eq!(full("wait"), Ok(Some(NoSpace::Wait)));
        assert_eq!(full("fail"), Ok(Some(NoSpace::FailAfter(DEVICE_FULL_MAX))));
        assert_eq!(full("fail:1.5"), Ok(Some(NoSpace::FailAfter(Duration::from_millis(1500)))));
        assert!(full("fail:never").unwrap_err().contains("device_full"));
        assert!(full("wait:3").unwrap_err().contains("neither wait nor fail"));
    }

    #[test]
    fn quotas_are_on_or_off_as_was_said_last() {
        let quotas = |text: &str| parse(text).map(|options| options.open.quotas.0);
        assert_eq!(quotas("rw"), Ok([None; 3]));
        assert_eq!(quotas("usrquota,grpquota=1,noprjquota"), Ok([Some(true), Some(true), Some(false)]));
        assert_eq!(quotas("quota"), Ok([Some(true), None, None]));
        assert_eq!(quotas("usrquota,prjquota=0,noquota"), Ok([Some(false), None, Some(false)]));
        assert!(quotas("usrquota=yes").unwrap_err().contains("neither 0 nor 1"));
        assert!(quotas("nogrpquota=1").unwrap_err().contains("nogrpquota"));
    }

    #[test]
    fn the_last_word_counts() {
        let read_write = |text: &str| parse(text).unwrap().read_write;
        assert_eq!(read_write("noatime"), None);
        assert_eq!((read_write("ro,rw"), read_write("rw,ro")), (Some(true), Some(false)));
    }

    #[test]
    fn unknown_options_are_refused_by_name() {
        for (list, name) in [
            ("ro,quiet", "quiet"),
            ("rw,sync", "sync"),
            ("degraded=1", "degraded=1"),
            ("cache", "cache"),
            ("fsck", "fsck"),
        ] {
            assert!(parse(list).unwrap_err().contains(&format!("'{name}'")), "{list}");
        }
        assert!(parse("cache=lots").unwrap_err().contains("lots"));
        assert!(MountOptions::parse(["ro,quiet"], true).is_ok());
    }

    #[test]
    fn access_times_are_what_was_said_last() {
        let accesses = |text| {
            let accesses = parse(text).unwrap().accesses();
            (accesses.files, accesses.directories)
        };
        use AccessTimes::{Always, Never, Relative};
        assert_eq!(accesses("rw"), (Never, true));
        assert_eq!(accesses("relatime"), (Relative, true));
        assert_eq!(accesses("noatime,strictatime"), (Always, true));
        assert_eq!(accesses("nodiratime"), (Relative, false));
        assert_eq!(accesses("noatime,nodiratime"), (Never, false));
        assert_eq!(accesses("nodiratime,diratime"), (Never, true));
    }

    #[test]
    fn the_help_names_what_has_an_effect() {
        for name in [
            "degraded",
            "very_degraded",
            "passphrase_file=",
            "cache=",
            "allow_other",
            "log=",
            "salvage_journal",
            "errors=",
            "device_full=",
            "usrquota",
        ] {
            assert!(HELP.contains(&format!("\n  {name}")), "{name}");
        }
    }
}
