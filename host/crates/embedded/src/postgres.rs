use crate::{
    EmbeddedError, READY_POLL, START_TIMEOUT, TAKE_OVER_TIMEOUT, io, must_exist, not_up,
    place::{Account, Place, forsaken_home, home_of},
    until_ready,
};
use nix::unistd::{Uid, User};
use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection};
use std::{
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};
use tsunami_process::{Exit, FolderLock, Process, Signal, Spec, working_in};

/// Until a server that was asked to end is killed. It writes its memory to the disk first.
const STOP_GRACE: Duration = Duration::from_secs(30);
/// Until the helpers of a server that was killed must have ended.
const HELPERS_TIMEOUT: Duration = Duration::from_secs(10);
/// PostgreSQL's lock on its data folder.
const LOCK: &str = "postmaster.pid";
/// Our notes of the server's process, and of the one that makes its data folder.
const PID: &str = "pid";
const INITDB_PID: &str = "initdb.pid";
/// A number that no process has.
const NO_PROCESS: i32 = i32::MAX;
/// Names the programs where `scripts/bootstrap` did not put them.
const SETTING: &str = "TSUNAMI_POSTGRES_BIN";
/// The superuser.
const ADMIN: &str = "postgres";

#[derive(Clone, Debug)]
pub struct PostgresSettings {
    /// The folder with `bin/postgres` and `bin/initdb`, of version 17 or newer.
    pub install_dir: PathBuf,
    /// What belongs to this server: data, log, pid.
    pub dir: PathBuf,
    /// The disk is not waited for: for tests. Survives kill -9, and no power failure.
    pub ephemeral: bool,
}

/// A role to make; the first one owns the database.
#[derive(Clone, Copy, Debug)]
pub struct Role {
    pub name: &'static str,
    /// May make roles of its own.
    pub create_role: bool,
}

/// A private PostgreSQL server. Dropping it leaves it running, for the next start to take over.
#[derive(Debug)]
pub struct Postgres {
    process: Process,
    place: Place,
    ephemeral: bool,
    log: PathBuf,
    _alone: FolderLock,
}

impl Postgres {
    /// Starts the server, or takes over the one of a run that was killed.
    ///
    /// # Errors
    /// The programs are missing; another `tsunami` uses the folder; the server ends or does not answer within a minute.
    pub async fn start(settings: &PostgresSettings) -> Result<Self, EmbeddedError> {
        must_exist(settings.install_dir.join("bin/postgres"), SETTING)?;
        must_exist(settings.install_dir.join("bin/initdb"), SETTING)?;
        let dir = &settings.dir;
        fs::create_dir_all(dir).map_err(io(format!("cannot make {}", dir.display())))?;
        if let Some(home) = forsaken_home(dir)? {
            remove_forsaken(&home, dir).await?;
        }
        let place = Place::prepare(dir, &settings.install_dir)?;
        let alone = FolderLock::take(&place.home)?;
        let log = place.home.join("postgres.log");
        let process = match take_over(&place, &log).await {
            Some(process) => process,
            None => {
                if !place.data.exists() {
                    initialise(&place, &log, settings.ephemeral).await?;
                }
                let process = launch(&place, &log, settings.ephemeral).await?;
                if let Err(error) = until_answers(&place, &process, &log, START_TIMEOUT).await {
                    process.stop(Signal::SIGINT, STOP_GRACE).await;
                    return Err(error);
                }
                process
            }
        };
        Ok(Self {
            process,
            place,
            ephemeral: settings.ephemeral,
            log,
            _alone: alone,
        })
    }

    /// Starts the server again where it has ended. The new process is noted before its answer is waited for.
    ///
    /// # Errors
    /// Somebody else uses its data; it ends or does not answer within a minute.
    pub async fn start_again(&mut self) -> Result<(), EmbeddedError> {
        if !self.process.is_running() {
            self.process = launch(&self.place, &self.log, self.ephemeral).await?;
        }
        until_answers(&self.place, &self.process, &self.log, START_TIMEOUT).await
    }

    /// Ends the server that runs in this folder, if one does, and one that is being set up: for whoever gave a start up
    /// before it was through.
    pub async fn end_left_behind(settings: &PostgresSettings) {
        let Ok((home, _)) = home_of(&settings.dir) else {
            return;
        };
        // Where somebody holds the lock, it is theirs.
        if let Ok(_alone) = FolderLock::take(&home) {
            end_servers(&home).await;
        }
    }

    /// Makes the roles and the database, where they are not there.
    ///
    /// # Errors
    /// The server refuses, or is gone.
    pub async fn create_database(
        &self,
        database: &str,
        roles: &[Role],
    ) -> Result<(), EmbeddedError> {
        let mut connection = PgConnection::connect(&self.url(ADMIN, ADMIN)).await?;
        for role in roles {
            if !exists(
                &mut connection,
                "select exists (select from pg_roles where rolname = $1)",
                role.name,
            )
            .await?
            {
                let rights = if role.create_role { " createrole" } else { "" };
                let name = quoted(role.name);
                connection
                    .execute(AssertSqlSafe(format!("create role {name} login{rights}")))
                    .await?;
            }
        }
        let there = exists(
            &mut connection,
            "select exists (select from pg_database where datname = $1)",
            database,
        )
        .await?;
        if !there && let Some(owner) = roles.first() {
            let (database, owner) = (quoted(database), quoted(owner.name));
            connection
                .execute(AssertSqlSafe(format!(
                    "create database {database} owner {owner}"
                )))
                .await?;
        }
        connection.close().await?;
        Ok(())
    }

    /// Removes a database, with whoever is connected to it.
    ///
    /// # Errors
    /// The server refuses, or is gone.
    pub async fn drop_database(&self, database: &str) -> Result<(), EmbeddedError> {
        let mut connection = PgConnection::connect(&self.url(ADMIN, ADMIN)).await?;
        let database = quoted(database);
        connection
            .execute(AssertSqlSafe(format!(
                "drop database if exists {database} with (force)"
            )))
            .await?;
        connection.close().await?;
        Ok(())
    }

    /// Where to connect to, over the Unix socket. Holds no secret.
    pub fn url(&self, database: &str, role: &str) -> String {
        url(&self.place.sockets, database, role)
    }

    pub fn pid(&self) -> i32 {
        self.process.pid()
    }

    pub fn process(&self) -> &Process {
        &self.process
    }

    pub fn socket_dir(&self) -> &Path {
        &self.place.sockets
    }

    pub fn data_dir(&self) -> &Path {
        &self.place.data
    }

    pub fn log(&self) -> &Path {
        &self.log
    }

    /// Ends it in good order: sessions are cut, everything is on the disk.
    pub async fn stop(self) {
        self.process.stop(Signal::SIGINT, STOP_GRACE).await;
    }
}

/// The server of an earlier run, if it answers; else it is ended.
async fn take_over(place: &Place, log: &Path) -> Option<Process> {
    let process = Process::adopt(&place.home.join(PID))?;
    match until_answers(place, &process, log, TAKE_OVER_TIMEOUT).await {
        Ok(()) => Some(process),
        Err(_) => {
            process.stop(Signal::SIGINT, STOP_GRACE).await;
            None
        }
    }
}

async fn launch(place: &Place, log: &Path, ephemeral: bool) -> Result<Process, EmbeddedError> {
    until_unused(&place.data).await?;
    clear_stale_locks(place)?;
    admit_starter(place)?;
    let args = arguments(place, ephemeral);
    Ok(Process::spawn(&spec(place, "postgres", log, args))?)
}

async fn until_answers(
    place: &Place,
    process: &Process,
    log: &Path,
    at_most: Duration,
) -> Result<(), EmbeddedError> {
    let url = url(&place.sockets, ADMIN, ADMIN);
    until_ready("PostgreSQL", process, log, at_most, || answers(&url)).await
}

async fn end_servers(home: &Path) {
    for (pid_file, signal) in [(INITDB_PID, Signal::SIGKILL), (PID, Signal::SIGINT)] {
        if let Some(process) = Process::adopt(&home.join(pid_file)) {
            process.stop(signal, STOP_GRACE).await;
        }
    }
}

/// Removes the data of a folder that is gone: nobody has the keys to what is in it any more.
async fn remove_forsaken(home: &Path, dir: &Path) -> Result<(), EmbeddedError> {
    tracing::warn!(folder = %home.display(), "it holds the data of an earlier {}; it is removed", dir.display());
    let _alone = FolderLock::take(home)?;
    end_servers(home).await;
    until_unused(&home.join("data")).await?;
    fs::remove_dir_all(home).map_err(io(format!("cannot remove {}", home.display())))
}

async fn answers(url: &str) -> Result<(), String> {
    let connection = PgConnection::connect(url)
        .await
        .map_err(|error| error.to_string())?;
    connection.close().await.map_err(|error| error.to_string())
}

async fn exists(
    connection: &mut PgConnection,
    query: &'static str,
    name: &str,
) -> Result<bool, sqlx::Error> {
    sqlx::query_scalar(query)
        .bind(name)
        .fetch_one(connection)
        .await
}

fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// The port and the mode are there so that no variable of the environment (`PGPORT`, `PGSSLMODE`) decides them.
fn url(sockets: &Path, database: &str, role: &str) -> String {
    let host = percent_encoded(&sockets.to_string_lossy());
    let (database, role) = (percent_encoded(database), percent_encoded(role));
    format!("postgres://{role}@localhost:5432/{database}?host={host}&sslmode=disable")
}

/// RFC 3986, 2.3: everything but the unreserved characters.
fn percent_encoded(text: &str) -> String {
    text.bytes()
        .map(|byte| match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                char::from(byte).to_string()
            }
            _ => format!("%{byte:02X}"),
        })
        .collect()
}

fn arguments(place: &Place, ephemeral: bool) -> Vec<OsString> {
    let mut settings = vec![
        "listen_addresses=",
        "port=5432",
        "max_connections=200",
        "shared_buffers=64MB",
        "wal_level=minimal", // Nobody follows this server.
        "max_wal_senders=0",
        "log_min_messages=warning",
    ];
    if ephemeral {
        settings.extend(["fsync=off", "full_page_writes=off"]);
    }
    let mut args: Vec<OsString> = vec![
        "-D".into(),
        place.data.clone().into(),
        "-k".into(),
        place.sockets.clone().into(),
    ];
    args.extend(
        settings
            .into_iter()
            .flat_map(|setting| ["-c".into(), setting.into()]),
    );
    args
}

/// Besides language and time zone: glibc gives memory back to the system at the end of each transaction and asks for it
/// again in the next, a twentieth of what a short one takes. It keeps a megabyte of each process instead.
const ENVIRONMENT: [(&str, &str); 4] = [
    ("LC_ALL", "C"),
    ("TZ", "UTC"),
    ("MALLOC_TOP_PAD_", "1048576"),
    ("MALLOC_TRIM_THRESHOLD_", "4194304"),
];

fn spec(place: &Place, program: &str, log: &Path, args: Vec<OsString>) -> Spec {
    Spec {
        name: program.into(),
        program: place.install.join("bin").join(program),
        args,
        env: ENVIRONMENT
            .iter()
            .map(|(name, value)| (name.into(), value.into()))
            .collect(),
        dir: place.home.clone(),
        log_file: log.to_owned(),
        pid_file: place.home.join(if program == "postgres" {
            PID
        } else {
            INITDB_PID
        }),
        run_as: place.account.map(|Account { uid, gid }| (uid, gid)),
    }
}

/// Makes the data folder aside, and moves it into place when it is whole: a kill in between leaves none.
async fn initialise(place: &Place, log: &Path, ephemeral: bool) -> Result<(), EmbeddedError> {
    const UNFINISHED: &str = "data.new";
    if let Some(unfinished) = Process::adopt(&place.home.join(INITDB_PID)) {
        unfinished.stop(Signal::SIGKILL, STOP_GRACE).await;
    }
    let _ = fs::remove_dir_all(place.home.join(UNFINISHED));
    let new = place.make_folder(UNFINISHED)?;
    // The collation is PostgreSQL's own, so that the data does not depend on the system's libraries.
    let mut args: Vec<OsString> = [
        "-U",
        ADMIN,
        "-A",
        "peer",
        "-E",
        "UTF8",
        "--no-instructions",
        "--locale=C",
    ]
    .map(OsString::from)
    .to_vec();
    args.extend(["--locale-provider=builtin", "--builtin-locale=C.UTF-8"].map(OsString::from));
    args.extend(["-D".into(), new.clone().into()]);
    if ephemeral {
        args.push("--no-sync".into());
    }
    let initdb = Process::spawn(&spec(place, "initdb", log, args))?;
    let exit = initdb.wait().await;
    initdb.stop(Signal::SIGKILL, STOP_GRACE).await;
    if exit != Exit::Code(0) {
        return Err(not_up("PostgreSQL", format!("initdb failed: {exit}"), log));
    }
    fs::rename(&new, &place.data).map_err(io("cannot move the new data folder into place"))
}

/// Lets in the user of the operating system who starts the server, as any role, and nobody else. Written at each start:
/// it may be another user than the last time.
fn admit_starter(place: &Place) -> Result<(), EmbeddedError> {
    let me = User::from_uid(Uid::effective())
        .ok()
        .flatten()
        .map_or_else(|| "root".into(), |user| user.name);
    let rule = "# Written at each start. The operating system says who connects.\nlocal all all peer map=tsunami\n";
    replace(place, "pg_hba.conf", rule)?;
    replace(
        place,
        "pg_ident.conf",
        &format!("# Written at each start.\ntsunami {} all\n", quoted(&me)),
    )
}

/// Replaces a file in the data folder. That folder is the server's: nothing in it is written through, it could be a link.
fn replace(place: &Place, file: &str, text: &str) -> Result<(), EmbeddedError> {
    let new = place.home.join(file);
    fs::write(&new, text)
        .and_then(|()| match place.account {
            Some(Account { uid, gid }) => std::os::unix::fs::chown(&new, Some(uid), Some(gid)),
            None => Ok(()),
        })
        .and_then(|()| fs::rename(&new, place.data.join(file)))
        .map_err(io(format!(
            "cannot write {file} in {}",
            place.data.display()
        )))
}

/// Waits until nobody uses the data: the helpers of a killed server need a moment to notice, and may write until then.
async fn until_unused(data: &Path) -> Result<(), EmbeddedError> {
    let deadline = Instant::now() + HELPERS_TIMEOUT;
    while let Some(pid) = working_in(data).first().copied() {
        if is_postmaster(data, pid) || Instant::now() > deadline {
            return Err(EmbeddedError::Occupied {
                pid,
                data: data.to_owned(),
            });
        }
        tokio::time::sleep(READY_POLL).await;
    }
    Ok(())
}

fn is_postmaster(data: &Path, pid: i32) -> bool {
    holder(&data.join(LOCK)) == Some(pid)
}

/// The process that a lock file of PostgreSQL's names, alive or not.
fn holder(lock: &Path) -> Option<i32> {
    fs::read_to_string(lock)
        .ok()?
        .lines()
        .next()?
        .trim()
        .parse()
        .ok()
}

/// PostgreSQL refuses to start where the process number in one of its lock files is in use. After a kill that may be
/// anybody's, or still the dead server's, where process 1 does not bury orphans, as in some containers. To be called
/// when nobody uses the data.
fn clear_stale_locks(place: &Place) -> Result<(), EmbeddedError> {
    let _ = fs::remove_file(place.sockets.join(".s.PGSQL.5432.lock"));
    let lock = place.data.join(LOCK);
    let Ok(text) = fs::read_to_string(&lock) else {
        return Ok(());
    };
    match text.split_once('\n') {
        // The rest stays: by it PostgreSQL makes sure that the shared memory of the dead server has no user.
        Some((_, rest)) if holder(&lock).is_some() => {
            replace(place, LOCK, &format!("{NO_PROCESS}\n{rest}"))
        }
        _ => fs::remove_file(&lock)
            .map_err(io(format!("cannot remove the broken {}", lock.display()))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_survive_any_folder_and_name() {
        let found = url(Path::new("/srv/my data/50%?&"), "a/b", "o'neil");
        assert_eq!(
            found,
            "postgres://o%27neil@localhost:5432/a%2Fb?host=%2Fsrv%2Fmy%20data%2F50%25%3F%26&sslmode=disable"
        );
    }

    #[test]
    fn names_cannot_leave_their_quotes() {
        assert_eq!(quoted("a\"; drop"), "\"a\"\"; drop\"");
    }
}
