//! The golden images at the command line: what there is, an image as a file, a mounted tree against its manifest.

use std::path::Path;
use std::process::ExitCode;

use frazil_testing::compare::Comparison;
use frazil_testing::{golden, observe};

const HELP: &str = "\
golden list                    the images at hand
golden unpack NAME [DIR]       write the devices of an image to DIR (default: the cache) and print their paths
golden passphrase NAME         what unlocks it
golden check NAME DIR          compare a mounted or exported tree with what the image must hold
";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["list"] => list(),
        ["unpack", name] => print_paths(&image(name).unpack_for_machine()),
        ["unpack", name, dir] => print_paths(&image(name).unpack_to(Path::new(dir))),
        ["passphrase", name] => println!("{}", image(name).passphrase.unwrap_or_default()),
        ["check", name, dir] => return check(name, Path::new(dir)),
        ["help" | "--help" | "-h"] => print!("{HELP}"),
        _ => {
            eprint!("{HELP}");
            return ExitCode::from(2);
        }
    }
    ExitCode::SUCCESS
}

fn image(name: &str) -> golden::GoldenImage {
    golden::find(name).unwrap_or_else(|| {
        eprintln!("error: no image {name} is at hand; see: golden list");
        std::process::exit(2);
    })
}

fn list() {
    for image in golden::all() {
        let devices = image.devices.len();
        println!(
            "{:46} {:5} {:?}, {devices} device(s): {}",
            image.name,
            image.version.to_string(),
            image.state,
            image.about
        );
    }
}

fn print_paths(paths: &[std::path::PathBuf]) {
    for path in paths {
        println!("{}", path.display());
    }
}

fn check(name: &str, dir: &Path) -> ExitCode {
    let manifest = image(name).manifest();
    let observed = match observe::tree(dir) {
        Ok(observed) => observed,
        Err(e) => {
            eprintln!("error: {e}");
            return ExitCode::from(2);
        }
    };
    let found = Comparison::new(&manifest).run(observed, |path| observe::content(dir, path));
    for line in &found {
        println!("{line}");
    }
    eprintln!("{name}: {} entries, {} differences", manifest.entries.len(), found.len());
    ExitCode::from(u8::from(!found.is_empty()))
}
