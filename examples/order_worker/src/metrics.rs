//! `/metrics`: the library's counters and the drain's progress, as Prometheus reads them.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::time::Duration;

use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use metrics::{counter, describe_counter, describe_gauge, gauge};
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
use smol::net::TcpListener;
use smol_hyper::rt::FuturesIo;
use watershed::{BoxError, Clock, Progress, SystemClock};

/// Serves `/metrics` as long as it is kept.
pub(crate) struct Metrics {
    /// It ends when this is dropped.
    _serving: smol::Task<()>,
}

impl Metrics {
    /// Counts from now on, and serves the counts at this address; the log says which port it got.
    ///
    /// # Errors
    ///
    /// When the address is none, is not one of this machine alone, or is somebody else's.
    pub(crate) async fn serve(address: &str, progress: &Progress) -> Result<Self, BoxError> {
        let say = || format!("[worker] metrics = {address:?}: type metrics = \"127.0.0.1:9100\"");
        let address: SocketAddr = address.parse().map_err(|_| say())?;
        if !address.ip().is_loopback() {
            // There is no password: a proxy in front of it is what others ask.
            return Err(format!("{}, an address of this machine alone", say()).into());
        }
        let recorder = PrometheusBuilder::new().build_recorder();
        let page = recorder.handle();
        metrics::set_global_recorder(recorder)?;
        describe();
        let listener = TcpListener::bind(address).await;
        let listener = listener.map_err(|error| format!("{}: {error}", say()))?;
        let port = listener.local_addr()?.port();
        tracing::info!(
            event = "metrics",
            port,
            "serving http://{}/metrics",
            listener.local_addr()?
        );
        let progress = progress.clone();
        let serving = smol::spawn(async move {
            loop {
                match listener.accept().await {
                    Ok((stream, _)) => {
                        let (page, progress) = (page.clone(), progress.clone());
                        smol::spawn(answer(stream, page, progress)).detach();
                    }
                    // Too many open files, say.
                    Err(error) => {
                        tracing::warn!("/metrics: {error}");
                        smol::Timer::after(Duration::from_secs(1)).await;
                    }
                }
            }
        });
        Ok(Self { _serving: serving })
    }
}

fn describe() {
    describe_counter!("order_worker_fetched_total", "Messages that were fetched.");
    describe_counter!("order_worker_settled_total", "Messages that have ended, by outcome.");
    describe_counter!("order_worker_troubles_total", "Calls of sources that failed and passed.");
    describe_counter!("order_worker_messages_total", "Messages by source, and their attempts.");
    describe_gauge!("order_worker_unsettled", "Messages that were fetched and have not ended.");
    describe_gauge!("order_worker_in_flight", "Messages that are with a handler, or undone.");
    describe_gauge!("order_worker_waiting", "Messages that wait for their next attempt.");
    let silent = "Since the source that is silent for longest has answered.";
    describe_gauge!("order_worker_last_answer_seconds", silent);
}

/// Answers the requests of one connection.
async fn answer(stream: smol::net::TcpStream, page: PrometheusHandle, progress: Progress) {
    let service = service_fn(async |request: Request<Incoming>| {
        let is_metrics = request.uri().path() == "/metrics";
        let (status, text) = if is_metrics {
            tell(&progress);
            (StatusCode::OK, page.render())
        } else {
            (StatusCode::NOT_FOUND, "there is only /metrics\n".to_owned())
        };
        let mut response = Response::new(text);
        *response.status_mut() = status;
        let kind = hyper::header::HeaderValue::from_static("text/plain; version=0.0.4");
        response.headers_mut().insert(hyper::header::CONTENT_TYPE, kind);
        Ok::<_, Infallible>(response)
    });
    if let Err(error) =
        http1::Builder::new().serve_connection(FuturesIo::new(stream), service).await
    {
        tracing::debug!("/metrics: {error}");
    }
}

/// Tells the recorder what the drain has done so far.
fn tell(progress: &Progress) {
    let report = progress.report();
    let settled = [
        ("accepted", report.accepted()),
        ("released", report.released()),
        ("rejected", report.rejected()),
        ("lost", report.lost()),
        ("unknown", report.unknown()),
        ("abandoned", report.abandoned()),
    ];
    counter!("order_worker_fetched_total").absolute(report.fetched());
    for (outcome, count) in settled {
        counter!("order_worker_settled_total", "outcome" => outcome).absolute(count);
    }
    counter!("order_worker_troubles_total").absolute(report.troubles());
    let ended: u64 = settled.iter().map(|(_, count)| count).sum();
    let unsettled = report.fetched().saturating_sub(ended);
    gauge!("order_worker_unsettled").set(count(unsettled));
    gauge!("order_worker_in_flight").set(count(report.in_flight()));
    gauge!("order_worker_waiting").set(count(report.waiting()));

    // The partitions of a topic are sources of one name.
    let mut sources = BTreeMap::<_, [u64; 4]>::new();
    for source in report.sources() {
        let sum = sources.entry(source.name().to_owned()).or_default();
        let counts = [source.taken(), source.handled(), source.failed(), source.attempts()];
        sum.iter_mut().zip(counts).for_each(|(sum, count)| *sum += count);
    }
    for (name, [taken, handled, failed, attempts]) in sources {
        let of = |what| counter!("order_worker_messages_total", "source" => name.clone(), "what" => what);
        of("taken").absolute(taken);
        of("handled").absolute(handled);
        of("failed").absolute(failed);
        of("attempts").absolute(attempts);
    }
    // Of the transport that is silent for longest; not a number while one has not answered yet.
    let silent = report.last_answer().map(|answered| SystemClock::new().now().since(answered));
    gauge!("order_worker_last_answer_seconds").set(silent.map_or(f64::NAN, |it| it.as_secs_f64()));
}

#[allow(clippy::cast_precision_loss, reason = "Prometheus has no other numbers")]
fn count(count: u64) -> f64 {
    count as f64
}
