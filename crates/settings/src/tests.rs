use std::{io::Write, time::Duration};

use clap::{Arg, Args};
use tracing::Level;

use super::*;

#[derive(Debug, Args)]
struct Settings {
    #[arg(long, env = "TESTED_CONFIG_FILE")]
    config_file: Option<String>,
    #[arg(long, env = "TESTED_LEASE", default_value = "3s", value_parser = duration(Duration::from_secs(1), Duration::from_secs(9)))]
    lease: Duration,
    #[arg(long, env = "TESTED_FORMAT", default_value = "human", value_parser = ["human", "json"])]
    format: String,
}

fn read(arguments: &[&str]) -> Result<(Settings, Vec<String>), Error> {
    let command = Settings::augment_args(Command::new("tested"));
    let arguments = ["tested"].iter().chain(arguments).map(OsString::from);
    let parsed = parse(command, &["TESTED"], arguments)?;
    Ok((parsed.read()?, parsed.unknown))
}

fn file(toml: &str) -> tempfile::NamedTempFile {
    let mut file = tempfile::NamedTempFile::with_suffix(".toml").unwrap();
    file.write_all(toml.as_bytes()).unwrap();
    file
}

#[test]
fn an_error_names_the_setting_of_the_subcommand_that_was_chosen() {
    let other = Command::new("other").args([
        Arg::new("config_file").long("config-file").env("OTHER_CONFIG_FILE"),
        Arg::new("lease")
            .long("lease")
            .env("OTHER_LEASE")
            .default_value("3s")
            .value_parser(duration(Duration::from_secs(1), Duration::from_secs(9))),
    ]);
    let tested = Settings::augment_args(Command::new("tested"));
    let file = file("lease = \"soon\"\n");
    let path = file.path().to_str().unwrap();
    let arguments = ["all", "other", "--config-file", path].map(OsString::from);
    let command = Command::new("all").subcommands([tested, other]);
    let error = parse(command, &["TESTED", "OTHER"], arguments).unwrap_err().to_string();
    assert!(error.starts_with(&format!("invalid lease \"soon\" in {path}: ")), "{error}");
}

#[test]
fn a_file_wins_over_defaults_and_the_command_line_over_the_file() {
    let file = file("lease = \"5s\"\nlaese = 1\n");
    let path = file.path().to_str().unwrap();
    let (settings, unknown) = read(&[]).unwrap();
    assert_eq!((settings.lease.as_secs(), settings.config_file), (3, None));
    assert_eq!(unknown, Vec::<String>::new());
    let (settings, unknown) = read(&["--config-file", path]).unwrap();
    assert_eq!((settings.lease.as_secs(), settings.config_file.as_deref()), (5, Some(path)));
    assert_eq!(unknown, [format!("laese in {path}")]);
    let (settings, _) = read(&["--lease=7s", "--config-file", path]).unwrap();
    assert_eq!((settings.lease.as_secs(), settings.format.as_str()), (7, "human"));
}

#[test]
fn an_error_names_the_setting_the_value_and_what_is_expected() {
    let error = |arguments: &[&str]| read(arguments).unwrap_err().to_string();
    let duration = "expected a duration such as 500ms or 3s";
    assert_eq!(error(&["--lease", "soon"]), format!("invalid --lease \"soon\": {duration}"));
    assert_eq!(error(&["--lease=10s"]), "invalid --lease \"10s\": must be between 1s and 9s");
    assert_eq!(error(&["--format", "xml"]), "invalid --format \"xml\": expected human or json");
    let file = file("lease = \"soon\"\n");
    let path = file.path().to_str().unwrap();
    assert_eq!(
        error(&["--config-file", path]),
        format!("invalid lease \"soon\" in {path}: {duration}")
    );
    let missing = error(&["--config-file", "/nowhere.toml"]);
    assert!(missing.starts_with(
        "invalid TESTED_CONFIG_FILE \"/nowhere.toml\": expected a readable TOML file"
    ));
    assert!(matches!(read(&["--nonsense"]), Err(Error::CommandLine(_))));
}

#[test]
fn credentials_are_not_shown() {
    for (url, shown) in [
        ("http://user:secret@resonate:8001", "http://resonate:8001"),
        ("http://user@resonate:8001/base", "http://resonate:8001/base"),
        ("htp://user:se@cret@resonate", "htp://resonate"),
        ("http://user:se/cr?et@resonate", "http://resonate"),
        ("http://127.0.0.1:8001/a@b", "http://127.0.0.1:8001/a@b"),
        ("a@b", "a@b"),
    ] {
        assert_eq!(without_credentials(url), shown);
        let error = SettingError::new("URL", url, "expected another one").to_string();
        assert_eq!(error, format!("invalid URL {shown:?}: expected another one"));
    }
}

#[test]
fn values_are_checked() {
    for (text, expected) in [
        ("http://resonate:8001/", "http://resonate:8001"),
        (" HTTPS://Resonate/base ", "https://resonate/base"),
        ("http:resonate:8001", "http://resonate:8001"),
    ] {
        assert_eq!(url(text).as_deref(), Ok(expected));
    }
    for bad in ["resonate:8001", "ftp://x", "http://", ""] {
        assert!(url(bad).is_err(), "{bad}");
    }
    assert_eq!(integer(1, 5)("5"), Ok(5));
    assert_eq!(integer(1, 5)("6"), Err("expected an integer from 1 to 5".to_owned()));
    assert!(name("a-B_9").is_ok() && name("a.b").is_err() && name("").is_err());
    assert!(address("127.0.0.1:0").is_ok() && address("localhost:1").is_err());
    let log = filter("info,hyper=debug").unwrap();
    assert!(log.would_enable("hyper", &Level::DEBUG) && !log.would_enable("node", &Level::DEBUG));
    for bad in ["hyper=loud", "", "info,", "info, hyper=debug", "hyper[request]=debug"] {
        let error = filter(bad).unwrap_err();
        assert!(error.starts_with("expected a filter such as info,hyper=debug ("), "{error}");
    }
}

#[test]
fn a_process_that_listens_on_all_addresses_is_reached_at_that_of_this_host() {
    for (listen, address) in
        [("0.0.0.0:1", "127.0.0.1:1"), ("[::]:1", "[::1]:1"), ("10.0.0.1:1", "10.0.0.1:1")]
    {
        assert_eq!(reachable(listen.parse().unwrap()), address.parse().unwrap());
    }
}
