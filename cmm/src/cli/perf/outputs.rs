//! Where the report goes: looked at before anything is measured, written at the end.

use super::PerfArgs;
use crate::cli::Outcome;
use ghidrah_perf::report::{Report, document};
use rustix::fs::{Access, access};
use std::io;
use std::path::Path;

/// Whether all files that the report is to be written to can be.
pub(super) fn check(args: &PerfArgs) -> Outcome {
    for path in [&args.csv, &args.svg, &args.into].into_iter().flatten() {
        writable(path).map_err(|error| cannot("write", path, &error))?;
    }
    if let Some(path) = &args.into {
        document::check(&read(path)?).map_err(|why| format!("{}: {why}", path.display()))?;
    }
    Ok(())
}

fn writable(path: &Path) -> io::Result<()> {
    match path.metadata() {
        Ok(found) if found.is_dir() => Err(io::ErrorKind::IsADirectory.into()),
        Ok(_) => Ok(access(path, Access::WRITE_OK)?),
        Err(_) => {
            let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty());
            Ok(access(directory.unwrap_or(Path::new(".")), Access::WRITE_OK | Access::EXEC_OK)?)
        }
    }
}

/// Prints the report, and writes it.
pub(super) fn show(args: &PerfArgs, report: &Report) -> Outcome {
    let write =
        |path: &Path, text: &str| std::fs::write(path, text).map_err(|error| cannot("write", path, &error));
    if args.json {
        println!("{}", report.json());
    } else {
        print!("{}", report.text());
    }
    let errors = report.errors();
    let measured = report.results.iter().any(|result| !result.runs.is_empty());
    if let Some(path) = args.csv.as_ref().filter(|_| measured) {
        write(path, &report.csv())?;
    }
    if let Some(path) = args.svg.as_ref().filter(|_| measured) {
        write(path, &report.svg().ok_or_else(|| "there is nothing to draw".to_owned())?)?;
    }
    if let Some(path) = args.into.as_ref().filter(|_| measured) {
        write(path, &report.insert_into(&read(path)?)?)?;
    }
    if errors.is_empty() { Ok(()) } else { Err(format!("not measured:\n  {}", errors.join("\n  ")).into()) }
}

fn read(path: &Path) -> Result<String, String> {
    std::fs::read_to_string(path).map_err(|error| cannot("read", path, &error))
}

fn cannot(what: &str, path: &Path, error: &io::Error) -> String {
    format!("cannot {what} {}: {error}", path.display())
}
