//! The counters of the library as a Prometheus page, by way of the `metrics` facade.
//!
//! ```console
//! cargo run --release -p prometheus
//! ```

use futures::stream;
use metrics_exporter_prometheus::PrometheusBuilder;
use watershed::{BoxError, CompensationPolicy, Source, StepContext, fan_in};

fn main() -> Result<(), BoxError> {
    let recorder = PrometheusBuilder::new().build_recorder();
    let page = recorder.handle();
    metrics::set_global_recorder(recorder)?;

    let context = StepContext::new("orders");
    let sources = [stream::iter(1..=3).named("web"), stream::iter(11..=14).named("phone")];
    futures::executor::block_on(async {
        let outcome = fan_in(&context, sources, async |order, step| {
            step.register_compensation(async || { /* free the seat */ });
            if order == 13 { Err("the payment was declined") } else { Ok(()) }
        })
        .await;
        if outcome.is_err() {
            context.roll_back(&CompensationPolicy::sequential_reverse()).await?;
        }
        Ok::<_, BoxError>(())
    })?;

    // What a handler of `GET /metrics` would answer.
    print!("{}", page.render());
    Ok(())
}
