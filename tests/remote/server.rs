//! A server of S3 on this machine: one for all tests of this program, or one of a test's own.

use std::io::Write as _;
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

/// A started server. It ends with this value, or with this process, however that dies.
pub struct Server {
    child: Option<Child>,
    pub address: String,
}

/// The server that tests share; each takes a bucket of its own.
pub fn shared() -> &'static Server {
    static SHARED: OnceLock<Server> = OnceLock::new();
    SHARED.get_or_init(|| match std::env::var("PREFLOW_TEST_S3") {
        Ok(address) => Server { child: None, address },
        Err(_) => Server::moto(),
    })
}

/// A port that was free a moment ago.
pub fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").expect("binds").local_addr().expect("an address").port()
}

impl Server {
    pub fn moto() -> Self {
        Self::start("http", &[])
    }

    /// One that speaks TLS, with a certificate that nobody vouches for but the file itself.
    pub fn with_certificate(certificate: &Path, key: &Path) -> Self {
        let (certificate, key) = (certificate.to_string_lossy(), key.to_string_lossy());
        Self::start("https", &["-s", "-c", &certificate, "-k", &key])
    }

    fn start(scheme: &str, options: &[&str]) -> Self {
        let program =
            Path::new(env!("CARGO_MANIFEST_DIR")).join("target/moto-venv/bin/moto_server");
        assert!(program.exists(), "the server is not installed: ./scripts/moto.sh");
        let port = free_port();
        // The shell ends the server when its input closes, which happens even after a kill -9.
        let script = "\"$0\" -H 127.0.0.1 -p \"$@\" >/dev/null 2>&1 & read -r _; kill -9 $!";
        let mut command = Command::new("sh");
        command.args(["-c", script]).arg(program).arg(port.to_string()).args(options);
        let child = command.stdin(Stdio::piped()).spawn().expect("sh starts");
        let address = format!("{scheme}://127.0.0.1:{port}");
        let begun = Instant::now();
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(begun.elapsed() < Duration::from_secs(60), "the server does not listen");
            std::thread::sleep(Duration::from_millis(50));
        }
        Self { child: Some(child), address }
    }

    /// `127.0.0.1:PORT`.
    pub fn host(&self) -> String {
        self.address.trim_start_matches("http://").to_owned()
    }

    /// Makes a bucket that nobody else uses.
    pub fn bucket(&self) -> String {
        static NEXT: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
        let n = NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        if self.child.is_none() {
            let bucket = std::env::var("PREFLOW_TEST_BUCKET").expect("PREFLOW_TEST_BUCKET");
            return format!("{bucket}/{}-{n}", std::process::id());
        }
        let name = format!("test-{}-{n}", std::process::id());
        ureq::put(format!("{}/{name}", self.address)).send_empty().expect("a bucket is made");
        name
    }

    /// Ends it at once.
    pub fn stop(&mut self) {
        if let Some(mut child) = self.child.take() {
            if let Some(mut input) = child.stdin.take() {
                let _ = input.write_all(b"\n");
            }
            let _ = child.wait();
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop();
    }
}
