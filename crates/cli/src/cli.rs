//! The command line: the list of commands, its help, and how wrong usage is reported.
//!
//! Every command describes its own arguments (see `commands/`). The overview of all commands is written by hand, because
//! it is grouped by what people want to do; a test keeps it complete.

use std::ffi::{OsStr, OsString};
use std::process::ExitCode;

use clap::error::ErrorKind;
use clap::{ArgAction, CommandFactory, Parser, Subcommand};

use crate::commands::{
    cat, completions, export, format, freeze, fsck, import, list, list_journal, ls, mount, quota, show_super,
    stat, status, subvolume, sync, top, tree, usage,
};
use crate::say;
use crate::stop::{EXIT_CODES, USAGE};

const COMMANDS: &str = "\
Make a volume:
  format         Make a volume on devices or in files, empty or with what is in a directory (also: mkfs)
  import         Copy a directory or a tar archive into a volume, without mounting it

Use a volume:
  mount          Mount it, read-only for now
  umount         Unmount it
  sync           Make everything durable that was done to it
  freeze         Freeze it: clean on its devices while you copy them; who changes something waits
  thaw           Thaw it
  shutdown       Stop it for good, as after an error
  subvolume      Make, delete and list its subvolumes and snapshots
  status         How it is: space, journal, what waits
  top            What it is doing, again and again
  usage          What its space is used for, mounted or not
  quota          What users, groups and projects use of it, and may use

Look at files without mounting:
  ls             What a directory holds
  cat            The content of a file
  stat           All about a file, where its data lie included
  tree           Everything below a directory, with hashes as JSON
  export         A directory as a tar archive

Check a volume:
  fsck           Does everything that is stored twice agree? (-n: check only)

Look at the metadata of a volume:
  show-super     What the superblock of a device says
  list           The keys of a volume's b-trees
  list-journal   The entries of a volume's journal

More:
  completions    Completions of the command line for your shell
  help           This text, or that of one command";

const EXAMPLES: &str = "\
Examples:
  frazil format --size 1G disk.img
  frazil format --size 4G --source rootfs/ disk.img
  frazil mount -o ro /dev/sdb1 /mnt
  frazil freeze /mnt --hold -- lvcreate -s -n snap vg/data
  frazil show-super /dev/sdb1
  frazil cat /dev/sdb1 /etc/fstab
  frazil export /dev/sdb1:/dev/sdc1 /home | tar x --xattrs -C /mnt/rescued
  frazil fsck -n /dev/sdb1
  frazil list -b inodes /dev/sdb1:/dev/sdc1";

/// bcachefs volumes in userspace
#[derive(Parser, Debug)]
#[command(
    name = "frazil",
    version,
    help_template = format!("\
{{about}}\n\n{{usage-heading}} frazil <COMMAND>\n\n{COMMANDS}\n\nOptions:\n{{options}}\n\n{EXAMPLES}\n\n{EXIT_CODES}\n"),
    disable_help_flag = true,
    max_term_width = 110,
)]
pub(crate) struct Cli {
    /// Say more: also errors of lower layers and what is going on; -vv and -vvv even more
    #[arg(short, long, action = ArgAction::Count, global = true, display_order = 1000)]
    pub(crate) verbose: u8,
    /// Print help
    #[arg(short, long, action = ArgAction::HelpShort, global = true, display_order = 1001)]
    help: Option<bool>,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What to do.
#[derive(Subcommand, Debug)]
pub(crate) enum Command {
    #[command(visible_alias = "mkfs")]
    Format(Box<format::Args>),
    Import(import::Args),
    Mount(mount::Args),
    Umount(mount::UmountArgs),
    Sync(sync::Args),
    Freeze(freeze::FreezeArgs),
    Thaw(freeze::ThawArgs),
    Shutdown(freeze::ShutdownArgs),
    Subvolume(subvolume::Args),
    Status(status::Args),
    Top(top::Args),
    Usage(usage::Args),
    Quota(quota::Args),
    Ls(ls::Args),
    Cat(cat::Args),
    Stat(stat::Args),
    Tree(tree::Args),
    Export(export::Args),
    Fsck(fsck::Args),
    ShowSuper(show_super::Args),
    List(list::Args),
    ListJournal(list_journal::Args),
    Completions(completions::Args),
}

/// Reads the command line. Help that was asked for is printed here; wrong usage is reported in one line.
pub(crate) fn parse(arguments: Vec<OsString>) -> Result<Cli, ExitCode> {
    let asked = arguments.get(1).cloned().unwrap_or_default();
    Cli::try_parse_from(arguments).map_err(|error| explain(&error, &asked))
}

/// The whole command line's description, for completions.
pub(crate) fn description() -> clap::Command {
    Cli::command()
}

fn explain(error: &clap::Error, asked: &OsStr) -> ExitCode {
    match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => {
            // If it cannot be printed there is nobody to tell.
            let _ = error.print();
            ExitCode::SUCCESS
        }
        ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {
            let _ = error.print();
            ExitCode::from(USAGE)
        }
        _ => {
            let known = Cli::command().get_subcommands().any(|command| asked == command.get_name());
            let of = if known { format!(" {}", asked.display()) } else { String::new() };
            say::error(format_args!("{}; see: frazil{of} --help", one_line(error)));
            // Who calls fsck expects the codes of fsck(8).
            ExitCode::from(if asked == "fsck" { fsck::USAGE } else { USAGE })
        }
    }
}

/// What clap explains in a paragraph, as one line.
pub(crate) fn one_line(error: &clap::Error) -> String {
    let text = error.render().to_string();
    let lines = text.lines().map(str::trim);
    let what: Vec<&str> = lines.clone().take_while(|line| !line.is_empty()).collect();
    let what = what.join(" ");
    let mut out = what.strip_prefix("error: ").unwrap_or(&what).to_owned();
    for tip in lines.filter_map(|line| line.strip_prefix("tip: ")) {
        out.push_str("; ");
        out.push_str(tip);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_description_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn the_overview_names_every_command() {
        for command in Cli::command().get_subcommands().filter(|c| !c.is_hide_set()) {
            let line = format!("\n  {:14} ", command.get_name());
            assert!(COMMANDS.contains(&line), "{} is not in the overview", command.get_name());
        }
    }
}
