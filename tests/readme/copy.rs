//! A copy of the repository, for a page that tells the reader to edit it.

use std::{
    fs,
    hash::{DefaultHasher, Hash, Hasher},
    io::ErrorKind,
    path::{Path, PathBuf},
    process::Command,
};

use crate::{
    markdown::{Block, Page},
    root,
};

/// Not part of the repository, or not needed to build it.
const LEFT_OUT: [&str; 4] = [".git", "target", "node_modules", "docs"];

/// The copy, and where its executables go. It stays, so that the next test builds less.
pub struct Copy {
    pub root: PathBuf,
    output: PathBuf,
}

impl Copy {
    /// Copies the repository as it is, for this page. Files that have not changed keep their
    /// times, so that cargo does not build them again.
    pub fn of_the_repository(page: &Page) -> Self {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("adding-a-service");
        let copy = Self { root: folder.join("repository"), output: folder.join("target") };
        match fs::remove_dir_all(&copy.root) {
            Err(error) if error.kind() != ErrorKind::NotFound => panic!("{error}"),
            _ => copy_folder(&root(), &copy.root),
        }
        copy.set_version(page);
        copy
    }

    /// Gives the crates of the copy a version of their own. Cargo then keeps what it builds from
    /// them apart from what it has built from the originals, in the same build directory; the
    /// dependencies, which are the same, it builds once. Another page means another version: a
    /// file that the page no longer changes has its old time again.
    fn set_version(&self, page: &Page) {
        let mut hash = DefaultHasher::new();
        page.text().hash(&mut hash);
        let version = format!("version = \"0.0.0-copy-{:x}\"", hash.finish());
        self.edit("Cargo.toml", |text| {
            let original = text.lines().find(|line| line.starts_with("version = ")).unwrap();
            // The crates that can be published ask for this version of one another, too.
            text.replace(original, &version)
        });
        // Cargo compares times, and this file is new although it says the same as the last one.
        let original = fs::metadata(root().join("Cargo.toml")).unwrap().modified().unwrap();
        let file = fs::File::options().write(true).open(self.root.join("Cargo.toml")).unwrap();
        file.set_modified(original).unwrap();
    }

    /// Builds the launcher of the copy: the path of its executable.
    pub fn build(&self) -> PathBuf {
        let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().unwrap();
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let mut command = Command::new(cargo);
        command.args(["build", "--quiet", "--offline", "--package", "launcher", "--bins"]);
        command.current_dir(&self.root).env("CARGO_INCREMENTAL", "0");
        command.env("CARGO_BUILD_BUILD_DIR", target).env("CARGO_TARGET_DIR", &self.output);
        let output = command.output().unwrap();
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "the copy does not build:\n{errors}");
        assert!(!errors.contains("warning: unused"), "the copy builds with warnings:\n{errors}");
        self.output.join("debug/async-rpc")
    }

    /// Writes a new file of the service that the page adds.
    pub fn write(&self, block: &Block) {
        let (path, lines) = block.file("// ");
        fs::write(self.root.join(path), lines.join("\n") + "\n").unwrap();
    }

    /// Whether a block is a file of the service that the page adds.
    pub fn is_new(block: &Block) -> bool {
        block.lines[0].starts_with("// services/j/")
    }

    /// Applies a ```diff block: its lines without `+` must be there, exactly once.
    pub fn apply(&self, block: &Block) {
        let (path, lines) = block.file("--- ");
        let of = |other: char| {
            let kept = lines.iter().filter(move |line| !line.starts_with(other));
            kept.map(|line| format!("{}\n", line.get(1..).unwrap_or_default())).collect::<String>()
        };
        let (before, after) = (of('+'), of('-'));
        self.edit(path, |text| {
            // In a list of dependencies the same line may begin another one.
            let found = text.match_indices(&before);
            let whole = found.filter(|(at, _)| *at == 0 || text[..*at].ends_with('\n'));
            assert_eq!(whole.count(), 1, "{path} has these lines once:\n{before}");
            text.replacen(&before, &after, 1)
        });
    }

    fn edit(&self, path: &str, edit: impl FnOnce(&str) -> String) {
        let file = self.root.join(path);
        let text = fs::read_to_string(&file).unwrap_or_else(|error| panic!("{path}: {error}"));
        fs::write(&file, edit(&text)).unwrap();
    }
}

fn copy_folder(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let (name, kind) = (entry.file_name(), entry.file_type().unwrap());
        if LEFT_OUT.iter().any(|left_out| name == *left_out) {
            continue;
        }
        let (source, target) = (entry.path(), to.join(&name));
        if kind.is_dir() {
            copy_folder(&source, &target);
        } else if kind.is_file() {
            fs::copy(&source, &target).unwrap();
            let modified = entry.metadata().unwrap().modified().unwrap();
            fs::File::options().write(true).open(&target).unwrap().set_modified(modified).unwrap();
        }
    }
}
