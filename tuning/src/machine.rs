//! The side that acts: reads a [`Place`] as it stands, says whether it may be written, and writes it.

use crate::host::{Host, RootedHost, Said};
use crate::place::{Nic, Place};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::Path;

/// Bit of `CAP_NET_ADMIN` in the effective capabilities.
const CAP_NET_ADMIN: u32 = 12;
/// How a queue discipline's value ends that nobody has chosen: the kernel made it.
pub(crate) const BY_DEFAULT: &str = " (default)";

/// Why a place was not set.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SetError {
    /// The device or the kernel does not do this; nothing has changed.
    #[error("not supported: {0}")]
    Unsupported(String),
    /// It should have worked.
    #[error("{0}")]
    Failed(String),
}

impl From<io::Error> for SetError {
    fn from(error: io::Error) -> Self {
        Self::Failed(error.to_string())
    }
}

/// A host that can be changed.
pub trait Machine: Host {
    /// What stands there; none where the place is not on this machine.
    fn value(&self, place: &Place) -> Option<String>;
    /// Why the place cannot be written by this process, without touching it; none where it can.
    fn refusal(&self, place: &Place) -> Option<String>;
    /// Writes the value; none removes a file of our own.
    fn set(&self, place: &Place, value: Option<&str>) -> Result<(), SetError>;
    /// The folders that must be made before this file of our own can be written, outermost first.
    fn missing_folders(&self, place: &Place) -> Vec<String>;
    /// Removes folders that we made, innermost first, if nobody has put anything there.
    fn remove_folders(&self, folders: &[String]);
}

impl Machine for RootedHost {
    fn value(&self, place: &Place) -> Option<String> {
        match place {
            Place::File(path) => self.read(path).map(|text| chosen(&text).to_owned()),
            Place::OwnFile(path) => fs::read_to_string(self.at(path)).ok(),
            Place::Nic { card, setting } => nic_value(self, card, Nic::find(setting)?),
            Place::Qdisc { card } => qdisc(self, card),
        }
    }

    fn refusal(&self, place: &Place) -> Option<String> {
        match place {
            // Opening has no effect; it asks the kernel, which also knows of read-only mounts and namespaces.
            Place::File(path) => {
                let open = OpenOptions::new().write(true).open(self.at(path));
                open.err().map(|error| error.to_string())
            }
            Place::OwnFile(path) => folder_refusal(&self.at(path)),
            Place::Nic { .. } | Place::Qdisc { .. } => {
                (!capable(self, CAP_NET_ADMIN)).then(|| "needs CAP_NET_ADMIN".into())
            }
        }
    }

    fn set(&self, place: &Place, value: Option<&str>) -> Result<(), SetError> {
        match (place, value) {
            (Place::File(path), Some(value)) => write_line(&self.at(path), value).map_err(refused),
            (Place::OwnFile(path), Some(text)) => Ok(replace(&self.at(path), text.as_bytes())?),
            (Place::OwnFile(path), None) => Ok(remove(&self.at(path))?),
            (Place::Nic { card, setting }, Some(value)) => set_nic(self, card, setting, value),
            (Place::Qdisc { card }, Some(value)) => set_qdisc(self, card, value),
            (_, None) => Err(SetError::Failed("there is no earlier value".into())),
        }
    }

    fn missing_folders(&self, place: &Place) -> Vec<String> {
        let Place::OwnFile(path) = place else {
            return Vec::new();
        };
        let parents = Path::new(path).ancestors().skip(1);
        let missing = parents.take_while(|folder| !self.at(&folder.to_string_lossy()).exists());
        let mut missing: Vec<String> = missing
            .map(|folder| folder.to_string_lossy().into_owned())
            .collect();
        missing.reverse();
        missing
    }

    fn remove_folders(&self, folders: &[String]) {
        for folder in folders.iter().rev() {
            // Not empty: somebody uses it by now.
            let _ = fs::remove_dir(self.at(folder));
        }
    }
}

/// The value in brackets, as in `always [madvise] never`, or all of the text.
pub(crate) fn chosen(text: &str) -> &str {
    let inside = text.split_once('[').and_then(|(_, rest)| rest.split_once(']'));
    inside.map_or(text, |(value, _)| value)
}

/// Whether this process has the capability with this number.
pub(crate) fn capable(host: &dyn Host, bit: u32) -> bool {
    let status = host.read("/proc/self/status").unwrap_or_default();
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let bits = effective.and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok());
    bits.unwrap_or(0) >> bit & 1 == 1
}

/// `EIO` from the interrupts that a driver manages itself.
const EIO: i32 = 5;
/// `EOPNOTSUPP`.
const EOPNOTSUPP: i32 = 95;

/// The kernel knows the file, and says that this one cannot be set: no failure of ours.
fn refused(error: io::Error) -> SetError {
    match error.raw_os_error() {
        Some(EIO | EOPNOTSUPP) => SetError::Unsupported(error.to_string()),
        _ => SetError::Failed(error.to_string()),
    }
}

fn write_line(path: &Path, value: &str) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).truncate(true).open(path)?;
    // One write: the kernel takes each as a whole value.
    file.write_all(format!("{value}\n").as_bytes())
}

/// Writes a file so that a crash leaves the earlier one or this one, on disk when it returns.
pub(crate) fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let folder = path.parent().unwrap_or(Path::new("/"));
    fs::create_dir_all(folder)?;
    let draft = draft(path);
    let mut file = File::create(&draft)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&draft, path)?;
    File::open(folder)?.sync_all()
}

/// The file that [`replace`] writes first.
fn draft(path: &Path) -> std::path::PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    path.with_file_name(format!(".{name}.tmp"))
}

/// Removes a file, and what an interrupted [`replace`] left; one that is gone already is no error.
pub(crate) fn remove(path: &Path) -> io::Result<()> {
    for path in [draft(path), path.to_owned()] {
        match fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

/// Why no file can be made there: asks the nearest folder that exists, by a file that is removed at once.
fn folder_refusal(path: &Path) -> Option<String> {
    let folder = path.ancestors().skip(1).find(|folder| folder.is_dir())?;
    let trial = folder.join(format!(".totality-{}.tmp", std::process::id()));
    let made = OpenOptions::new().write(true).create_new(true).open(&trial);
    let _ = made.is_ok().then(|| fs::remove_file(&trial));
    made.err().map(|error| format!("{}: {error}", folder.display()))
}

fn nic_value(host: &dyn Host, card: &str, setting: &Nic) -> Option<String> {
    let said = host.tool("ethtool", &[setting.show, card])?;
    (said.ok).then(|| nic_in(&said.out, setting.name)).flatten()
}

/// What `ethtool` printed for a setting; `n/a` is none.
pub(crate) fn nic_in(text: &str, name: &str) -> Option<String> {
    let value = match name {
        "ring-rx" | "ring-tx" => field(
            text.split_once("Current hardware settings:")?.1,
            &ring_label(name),
        )?,
        "adaptive-rx" => field(text, "Adaptive RX")?.split_whitespace().next()?.to_owned(),
        name => field(text, name)?,
    };
    (value != "n/a" && !value.is_empty()).then_some(value)
}

/// The most that a ring of this card can hold, in descriptors.
pub(crate) fn ring_most(text: &str, name: &str) -> Option<u64> {
    most(text, &ring_label(name))
}

/// The number with this label among a card's maximums.
pub(crate) fn most(text: &str, label: &str) -> Option<u64> {
    let (most, _) = text.split_once("Current hardware settings:")?;
    field(most, label)?.parse().ok()
}

fn ring_label(name: &str) -> String {
    name.trim_start_matches("ring-").to_uppercase()
}

fn field(text: &str, label: &str) -> Option<String> {
    let mut values = text
        .lines()
        .filter_map(|line| line.trim().strip_prefix(label)?.strip_prefix(':'));
    values.next().map(|value| value.trim().to_owned())
}

fn set_nic(machine: &RootedHost, card: &str, setting: &str, value: &str) -> Result<(), SetError> {
    let nic = Nic::find(setting).ok_or_else(|| SetError::Failed(format!("unknown setting {setting}")))?;
    let before = nic_value(machine, card, nic);
    let said = run(machine, "ethtool", &[nic.set, card, nic.word, value])?;
    judge(&said, before == nic_value(machine, card, nic))
}

/// A tool's answer: it worked, the device will not, or something is wrong.
fn judge(said: &Said, unchanged: bool) -> Result<(), SetError> {
    let error = || said.err.split_whitespace().collect::<Vec<_>>().join(" ");
    match () {
        () if said.ok => Ok(()),
        () if unchanged && !said.err.contains("not permitted") => Err(SetError::Unsupported(error())),
        () => Err(SetError::Failed(error())),
    }
}

fn run(machine: &RootedHost, program: &str, arguments: &[&str]) -> Result<Said, SetError> {
    let said = machine.tool(program, arguments);
    said.ok_or_else(|| SetError::Failed(format!("{program} is not here")))
}

/// The root queue discipline: kind, kinds of a multiqueue's children, and whether the kernel chose it.
pub(crate) fn qdisc(host: &dyn Host, card: &str) -> Option<String> {
    let said = host.tool("tc", &["qdisc", "show", "dev", card])?;
    said.ok.then(|| qdisc_in(&said.out)).flatten()
}

fn qdisc_in(text: &str) -> Option<String> {
    let lines: Vec<Vec<&str>> = text
        .lines()
        .map(|line| line.split_whitespace().collect())
        .collect();
    let root = lines.iter().find(|words| words.contains(&"root"))?;
    let (kind, handle) = (root.get(1)?, root.get(2)?);
    let mut children: Vec<&str> = Vec::new();
    for words in lines.iter().filter(|words| words.contains(&"parent")) {
        children.extend(words.get(1).filter(|kind| !children.contains(kind)));
    }
    let within = if children.is_empty() {
        String::new()
    } else {
        format!(" of {}", children.join(", "))
    };
    Some(format!(
        "{kind}{within}{}",
        if *handle == "0:" { BY_DEFAULT } else { "" }
    ))
}

/// Replaces a root that the kernel chose, or takes ours away so that the kernel chooses again.
fn set_qdisc(machine: &RootedHost, card: &str, value: &str) -> Result<(), SetError> {
    if value.ends_with(BY_DEFAULT) {
        let said = run(machine, "tc", &["qdisc", "del", "dev", card, "root"])?;
        judge(&said, false)?;
        let now = qdisc(machine, card).unwrap_or_default();
        let same = now == value;
        return if same {
            Ok(())
        } else {
            Err(SetError::Failed(format!("the kernel now chooses {now}")))
        };
    }
    let kind = value.split(' ').next().unwrap_or_default();
    // The children of a multiqueue root are of the default kind.
    if kind == "mq" && machine.sysctl("net.core.default_qdisc").as_deref() != Some("fq") {
        return Err(SetError::Unsupported(
            "needs net.core.default_qdisc = fq (key congestion) first".into(),
        ));
    }
    let before = qdisc(machine, card);
    let said = run(machine, "tc", &["qdisc", "replace", "dev", card, "root", kind])?;
    judge(&said, before == qdisc(machine, card))
}

#[cfg(test)]
mod tests {
    use super::*;

    const RINGS: &str = "Ring parameters for eth0:\nPre-set maximums:\nRX:\t\t4096\nRX Mini:\tn/a\nTX:\t\tn/a\n\
                         Current hardware settings:\nRX:\t\t256\nRX Mini:\tn/a\nTX:\t\tn/a\n";

    #[test]
    fn a_cards_answers_are_read() {
        assert_eq!(nic_in(RINGS, "ring-rx").as_deref(), Some("256"));
        assert_eq!(
            (ring_most(RINGS, "ring-rx"), ring_most(RINGS, "ring-tx")),
            (Some(4096), None)
        );
        assert_eq!(nic_in(RINGS, "ring-tx"), None);
        let coalesce =
            "Coalesce parameters for eth0:\nAdaptive RX: off  TX: n/a\nrx-usecs: 0\nrx-usecs-irq: n/a\n";
        assert_eq!(nic_in(coalesce, "adaptive-rx").as_deref(), Some("off"));
        assert_eq!(nic_in(coalesce, "rx-usecs").as_deref(), Some("0"));
        let features = "scatter-gather: off\n\ttx-scatter-gather: off\ngeneric-segmentation-offload: off [requested \
        on]\n";
        assert_eq!(nic_in(features, "scatter-gather").as_deref(), Some("off"));
        assert_eq!(
            nic_in(features, "generic-segmentation-offload").as_deref(),
            Some("off [requested on]")
        );
        assert_eq!(nic_in("", "ring-rx"), None);
    }

    #[test]
    fn queue_disciplines_say_who_chose_them() {
        let one = "qdisc pfifo_fast 0: root refcnt 2 bands 3 priomap 1 2\n";
        assert_eq!(qdisc_in(one).as_deref(), Some("pfifo_fast (default)"));
        let many =
            "qdisc mq 8001: root\nqdisc fq 0: parent 8001:2 limit 1\nqdisc fq 0: parent 8001:1 limit 1\n";
        assert_eq!(qdisc_in(many).as_deref(), Some("mq of fq"));
        assert_eq!(qdisc_in("qdisc"), None);
    }

    #[test]
    fn a_file_of_ours_comes_and_goes_whole() {
        let root = tempfile::tempdir().unwrap();
        let machine = RootedHost::new(root.path());
        let place = Place::OwnFile(crate::place::NOFILE_UNIT.into());
        fs::create_dir_all(root.path().join("etc")).unwrap();
        let folders = machine.missing_folders(&place);
        assert_eq!(folders.len(), 3, "{folders:?}");
        assert_eq!((machine.refusal(&place), machine.value(&place)), (None, None));
        machine.set(&place, Some("text\n")).unwrap();
        assert_eq!(machine.value(&place).as_deref(), Some("text\n"));
        machine.set(&place, None).unwrap();
        machine.remove_folders(&folders);
        assert_eq!(fs::read_dir(root.path().join("etc")).unwrap().count(), 0);
    }

    #[test]
    fn a_kernels_file_is_never_made() {
        let root = tempfile::tempdir().unwrap();
        let machine = RootedHost::new(root.path());
        let place = Place::sysctl("net.core.somaxconn");
        assert!(machine.refusal(&place).is_some());
        assert!(machine.set(&place, Some("1")).is_err());
        assert_eq!(fs::read_dir(root.path()).unwrap().count(), 0);
    }
}
