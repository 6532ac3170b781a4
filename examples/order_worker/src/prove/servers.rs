//! The servers of a job: `PostgreSQL`, a Kafka broker with storage that outlives it, and SQS; each behind
//! a proxy.
//!
//! They are the job's own processes and end with it, however it ends: the kernel kills each as soon as
//! the thread that started it is gone. So that thread lives as long as they do.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use std::{env, thread};

use watershed::BoxError;

use super::faults::Line;
use super::http;
use super::proxy::Proxy;

/// How long a server may take until it can be reached.
const START: Duration = Duration::from_mins(1);

/// How late each piece of the store's traffic is, in both directions: without it a round's orders are
/// handled before anything can be done to them.
const STORE_DELAY: Duration = Duration::from_millis(6);

/// Where the programs are.
#[derive(Clone, Debug)]
pub(crate) struct Programs {
    /// The folder with `postgres`, `initdb` and `pg_dump`.
    postgres: PathBuf,
    /// The Kafka broker `tansu`.
    kafka: PathBuf,
    /// The folder with `moto_server`.
    moto: PathBuf,
}

/// All of them.
#[derive(Debug)]
pub(crate) struct Servers {
    programs: Programs,
    postgres: Server,
    kafka: Server,
    sqs: Server,
    /// What the broker keeps.
    _storage: Server,
    /// By the order of [`Line::ALL`].
    proxies: Vec<Proxy>,
}

/// One process, which may be started again on the same port.
#[derive(Debug)]
struct Server {
    name: &'static str,
    command: Command,
    port: u16,
    log: PathBuf,
    child: Option<Child>,
}

impl Programs {
    /// Where `.ci/prove` says they are.
    ///
    /// # Errors
    ///
    /// When it has not said so.
    pub(crate) fn find() -> Result<Self, BoxError> {
        let path = |variable: &str| {
            let missing = || {
                format!(
                    "{variable} is not set; `.ci/prove ROUNDS` installs the servers and sets it"
                )
            };
            env::var_os(variable).map(PathBuf::from).ok_or_else(missing)
        };
        Ok(Self {
            postgres: path("WATERSHED_PROVE_POSTGRES")?,
            kafka: path("WATERSHED_PROVE_KAFKA")?,
            moto: path("WATERSHED_PROVE_SQS")?,
        })
    }
}

/// The broker's storage, one request at a time. With a thread for each request, as `moto_server` has it, two
/// conditional writes of one object may both succeed, and the broker counts on that they do not.
const STORAGE: &str = "
import sys
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import run_simple
run_simple('127.0.0.1', int(sys.argv[1]), DomainDispatcherApplication(create_backend_app), threaded=False)
";

impl Servers {
    /// Starts all of them, with their data and logs in that folder.
    ///
    /// # Errors
    ///
    /// When one does not start, with the end of its log.
    pub(crate) fn start(programs: &Programs, folder: &Path) -> Result<Self, BoxError> {
        let storage = Server::start_new(|port| {
            let mut command = dying_with_us(&programs.moto.join("python3"), None);
            command.args(["-c", STORAGE, &port.to_string()]);
            Ok(Server::new("storage", command, port, folder))
        })?;
        let sqs = Server::start_new(|port| {
            let mut command = dying_with_us(&programs.moto.join("moto_server"), None);
            command.args(["-H", "127.0.0.1", "-p", &port.to_string()]);
            Ok(Server::new("sqs", command, port, folder))
        })?;

        let data = folder.join("postgres");
        initialize(programs, &data)?;
        let postgres = Server::start_new(|port| {
            let mut command = dying_with_us(&programs.postgres.join("postgres"), server_user());
            command.arg("-D").arg(&data).args(["-p", &port.to_string()]);
            command.args(["-c", "listen_addresses=127.0.0.1", "-c", "unix_socket_directories="]);
            command.args(["-c", "max_connections=200"]);
            Ok(Server::new("postgres", command, port, folder))
        })?;

        let bucket = format!("http://127.0.0.1:{}", storage.port);
        http::put(storage.address(), "/tansu")?;
        // The broker tells its clients where it is: behind its proxy, which is there first. For a
        // proxy, its server's port has to be known, so it gets another one if that one is taken.
        let mut proxy = None;
        let kafka = Server::start_new(|port| {
            let front = Proxy::start(local(port), Duration::ZERO)?;
            let mut command = dying_with_us(&programs.kafka, None);
            command.arg("broker").args(["--storage-engine", "s3://tansu/"]);
            command.args(["--listener-url", &format!("tcp://127.0.0.1:{port}")]);
            command.args(["--advertised-listener-url", &format!("tcp://{}", front.address())]);
            command.env("AWS_ENDPOINT", &bucket).env("AWS_ALLOW_HTTP", "true");
            command.env("AWS_ACCESS_KEY_ID", "key").env("AWS_SECRET_ACCESS_KEY", "secret");
            command.env("AWS_DEFAULT_REGION", "eu-central-1");
            proxy = Some(front);
            Ok(Server::new("kafka", command, port, folder))
        })?;
        let proxies = vec![
            Proxy::start(postgres.address(), STORE_DELAY)?,
            Proxy::start(postgres.address(), Duration::ZERO)?,
            proxy.ok_or("the broker has no proxy")?,
            Proxy::start(sqs.address(), Duration::ZERO)?,
        ];
        Ok(Self { programs: programs.clone(), postgres, kafka, sqs, _storage: storage, proxies })
    }

    /// The connections of that kind.
    pub(crate) fn proxy(&self, line: Line) -> &Proxy {
        &self.proxies[line as usize]
    }

    /// `PostgreSQL` itself, behind no proxy: for the driver's own questions.
    pub(crate) fn database(&self, name: &str) -> String {
        database_at(self.postgres.address(), name)
    }

    /// Stops it without a word to its clients, and starts it again: it recovers from its log.
    ///
    /// # Errors
    ///
    /// When it does not come back.
    pub(crate) fn restart_postgres(&mut self) -> Result<(), BoxError> {
        self.postgres.signal("QUIT")?;
        self.postgres.wait()?;
        self.postgres.start()
    }

    pub(crate) fn kill_kafka(&mut self) -> Result<(), BoxError> {
        self.kafka.kill()
    }

    /// On the storage that the one before had.
    ///
    /// # Errors
    ///
    /// When it does not start.
    pub(crate) fn start_kafka(&mut self) -> Result<(), BoxError> {
        self.kafka.start()
    }

    pub(crate) fn freeze_sqs(&mut self) -> Result<(), BoxError> {
        self.sqs.signal("STOP")
    }

    pub(crate) fn thaw_sqs(&mut self) -> Result<(), BoxError> {
        self.sqs.signal("CONT")
    }

    /// Makes all of them reachable again, whatever a round that failed has left.
    ///
    /// # Errors
    ///
    /// When one does not start.
    pub(crate) fn repair(&mut self) -> Result<(), BoxError> {
        for proxy in &self.proxies {
            proxy.go_on();
        }
        self.thaw_sqs()?;
        for server in [&mut self.postgres, &mut self.kafka, &mut self.sqs] {
            if !server.is_running()? {
                server.start()?;
            }
        }
        Ok(())
    }

    /// Writes down all that is in a database, for whoever looks at a round that failed.
    ///
    /// # Errors
    ///
    /// When that fails.
    pub(crate) fn dump(&self, database: &str, file: &Path) -> io::Result<()> {
        let mut command = Command::new(self.programs.postgres.join("pg_dump"));
        command.args(["--inserts", "-d"]).arg(self.database(database));
        let status = command.stdout(File::create(file)?).stderr(Stdio::inherit()).status()?;
        if status.success() { Ok(()) } else { Err(io::Error::other(format!("pg_dump: {status}"))) }
    }

    /// The logs of all of them.
    pub(crate) fn logs(&self) -> [&Path; 3] {
        [&self.postgres.log, &self.kafka.log, &self.sqs.log].map(PathBuf::as_path)
    }
}

impl Server {
    fn new(name: &'static str, command: Command, port: u16, folder: &Path) -> Self {
        Self { name, command, port, log: folder.join(format!("{name}.log")), child: None }
    }

    /// On a port that is free now; where somebody else takes it meanwhile, on another one.
    fn start_new(mut server: impl FnMut(u16) -> Result<Self, BoxError>) -> Result<Self, BoxError> {
        let mut tries = 0..4;
        loop {
            let mut server = server(free_port()?)?;
            match server.start() {
                Ok(()) => return Ok(server),
                Err(error) if tries.next().is_none() => return Err(error),
                Err(_) => {}
            }
        }
    }

    fn address(&self) -> SocketAddr {
        local(self.port)
    }

    fn start(&mut self) -> Result<(), BoxError> {
        let log = OpenOptions::new().create(true).append(true).open(&self.log)?;
        self.command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        self.child = Some(self.command.spawn()?);
        let began = Instant::now();
        while TcpStream::connect(self.address()).is_err() {
            if !self.is_running()? || began.elapsed() > START {
                let log = fs::read_to_string(&self.log).unwrap_or_default();
                let end = log.lines().rev().take(5).collect::<Vec<_>>();
                let end = end.into_iter().rev().collect::<Vec<_>>().join("\n");
                return Err(format!("{} does not start:\n{end}", self.name).into());
            }
            thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    fn is_running(&mut self) -> io::Result<bool> {
        match &mut self.child {
            Some(child) => Ok(child.try_wait()?.is_none()),
            None => Ok(false),
        }
    }

    fn signal(&mut self, name: &str) -> Result<(), BoxError> {
        match &self.child {
            Some(child) => signal(child, name),
            None => Err(format!("{} does not run", self.name).into()),
        }
    }

    fn kill(&mut self) -> Result<(), BoxError> {
        let mut child = self.child.take().ok_or("the server does not run")?;
        child.kill()?;
        child.wait()?;
        Ok(())
    }

    fn wait(&mut self) -> Result<(), BoxError> {
        let mut child = self.child.take().ok_or("the server does not run")?;
        child.wait()?;
        Ok(())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // One that has ended cannot be killed.
        let _ = self.kill();
    }
}

/// A command whose process is killed when the thread that started it is gone; as that user, if any.
pub(crate) fn dying_with_us(program: &Path, user: Option<&str>) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL"]);
    if let Some(user) = user {
        command.args(["--reuid", user, "--regid", user, "--clear-groups"]);
    }
    command.arg("--").arg(program);
    command
}

/// Sends a signal.
///
/// # Errors
///
/// When it cannot be sent.
pub(crate) fn signal(child: &Child, name: &str) -> Result<(), BoxError> {
    // A child that nobody has waited for has its number still, even if it has ended.
    let sent = Command::new("kill").arg(format!("-{name}")).arg(child.id().to_string()).status()?;
    if sent.success() { Ok(()) } else { Err(format!("kill -{name}: {sent}").into()) }
}

/// A database of the server at that address.
pub(crate) fn database_at(server: SocketAddr, name: &str) -> String {
    format!("postgres://postgres@{server}/{name}")
}

/// Makes the folder of a `PostgreSQL` server.
fn initialize(programs: &Programs, data: &Path) -> Result<(), BoxError> {
    fs::create_dir(data)?;
    if let Some(user) = server_user() {
        let owned = Command::new("chown").arg(user).arg(data).status()?;
        if !owned.success() {
            return Err(format!("chown {user} {}: {owned}", data.display()).into());
        }
    }
    let mut command = dying_with_us(&programs.postgres.join("initdb"), server_user());
    command.arg("-D").arg(data).args(["-A", "trust", "-U", "postgres", "--no-sync"]);
    let output = command.stdin(Stdio::null()).output()?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(format!("initdb: {}\n{said}", output.status).into())
}

/// Whose processes `PostgreSQL`'s are: it refuses to run as root.
fn server_user() -> Option<&'static str> {
    let ids = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let is_root = ids.lines().any(|line| line.split_whitespace().take(3).eq(["Uid:", "0", "0"]));
    is_root.then_some("postgres")
}

/// Below those that connections are given: a server that is started again finds its port free.
fn free_port() -> io::Result<u16> {
    let mut tries = 0..200;
    loop {
        let port = fastrand::u16(20_000..32_000);
        match std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, port)) {
            Ok(_) => return Ok(port),
            Err(error) if tries.next().is_none() => return Err(error),
            Err(_) => {}
        }
    }
}

fn local(port: u16) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, port))
}
