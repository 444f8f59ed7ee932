//! The shared library of libfabric, loaded when it is first wanted: a program built with this transport
//! starts on machines without it.
#![allow(unsafe_code)]

use super::abi::{Fabric, FabricAttr, Info, version};
use libloading::os::unix;
use std::error::Error;
use std::ffi::{CStr, OsString, c_char, c_int, c_void};
use std::sync::OnceLock;

/// The environment variable that names the library, for sites that have it in a place of its own. What it
/// names is run in this process, like all that the dynamic linker finds.
pub(super) const LIBRARY_VARIABLE: &str = "GHIDRAH_LIBFABRIC";
/// The name under which the dynamic linker knows it.
const LIBRARY: &str = "libfabric.so.1";
/// Layouts are those of this version or, appended to, of later ones.
const VERSION_MIN: u32 = version(1, 9);
/// The version whose behaviour is asked for, if the library is not older: the newest this has been tested with.
const VERSION_WANTED: u32 = version(1, 17);

/// The calls that are exported; all others are reached through objects.
pub(super) struct Library {
    pub getinfo:
        unsafe extern "C" fn(u32, *const c_char, *const c_char, u64, *const Info, *mut *mut Info) -> c_int,
    pub freeinfo: unsafe extern "C" fn(*mut Info),
    pub dupinfo: unsafe extern "C" fn(*const Info) -> *mut Info,
    pub fabric: unsafe extern "C" fn(*mut FabricAttr, *mut *mut Fabric, *mut c_void) -> c_int,
    strerror: unsafe extern "C" fn(c_int) -> *const c_char,
    /// As `FI_VERSION` has it.
    version: u32,
}

impl Library {
    /// The library, or why it cannot be had, as a sentence for people. It is never unloaded: its providers
    /// leave handlers in the process that must stay callable.
    pub(super) fn get() -> Result<&'static Library, String> {
        static LOADED: OnceLock<Result<Library, String>> = OnceLock::new();
        LOADED.get_or_init(Library::load).as_ref().map_err(Clone::clone)
    }

    fn load() -> Result<Library, String> {
        let name = std::env::var_os(LIBRARY_VARIABLE).unwrap_or_else(|| OsString::from(LIBRARY));
        // SAFETY: loading runs the initialisers of libfabric, which have no requirements.
        let library = unsafe { unix::Library::new(&name) }.map_err(|error| {
            let error = error.source().map_or_else(|| error.to_string(), ToString::to_string);
            format!(
                "libfabric cannot be loaded ({error}); on Debian: apt-get install libfabric1, or name the \
                 library in {LIBRARY_VARIABLE}"
            )
        })?;
        /// # Safety
        /// `T` must be the type of the function that libfabric exports by that name.
        unsafe fn symbol<T: Copy>(library: &unix::Library, name: &str) -> Result<T, String> {
            // SAFETY: as the caller has promised.
            let symbol = unsafe { library.get::<T>(name) };
            symbol.map(|s| *s).map_err(|error| format!("{name} is missing in libfabric: {error}"))
        }
        // SAFETY: the prototypes are those of rdma/fabric.h.
        let (loaded, version) = unsafe {
            let version: unsafe extern "C" fn() -> u32 = symbol(&library, "fi_version")?;
            let version = version();
            let loaded = Library {
                getinfo: symbol(&library, "fi_getinfo")?,
                freeinfo: symbol(&library, "fi_freeinfo")?,
                dupinfo: symbol(&library, "fi_dupinfo")?,
                fabric: symbol(&library, "fi_fabric")?,
                strerror: symbol(&library, "fi_strerror")?,
                version,
            };
            (loaded, version)
        };
        std::mem::forget(library);
        if version < VERSION_MIN {
            return Err(format!("libfabric {} is too old: 1.9 or later is needed", text(version)));
        }
        Ok(loaded)
    }

    /// The version to ask for.
    pub(super) fn version_wanted(&self) -> u32 {
        self.version.min(VERSION_WANTED)
    }

    /// Its version, for people.
    pub(super) fn version_text(&self) -> String {
        text(self.version)
    }

    /// What an error (positive) means, for people.
    pub(super) fn error_text(&self, error: c_int) -> String {
        // SAFETY: it returns a C string that lives until the next call by this thread at least.
        let text = unsafe {
            let text = (self.strerror)(error);
            if text.is_null() { None } else { Some(CStr::from_ptr(text).to_string_lossy().into_owned()) }
        };
        text.unwrap_or_else(|| format!("error {error}"))
    }
}

fn text(version: u32) -> String {
    format!("{}.{}", version >> 16, version & 0xffff)
}
