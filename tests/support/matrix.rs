//! Rule 5.2: the executors that the shared tests run under.

use std::future::Future;

/// Makes a test of each of these async functions under every executor.
#[allow(unused_macros, reason = "each test file uses a part of the support")]
macro_rules! on_every_executor {
    ($($test:ident),+ $(,)?) => {
        on_every_executor!(@under futures_executor, futures::executor::block_on, $($test)+);
        on_every_executor!(@under smol, ::smol::block_on, $($test)+);
        on_every_executor!(@under async_std, ::async_std::task::block_on, $($test)+);
        on_every_executor!(
            @under tokio_current_thread, crate::support::matrix::tokio_current_thread, $($test)+
        );
        on_every_executor!(
            @under tokio_multi_thread, crate::support::matrix::tokio_multi_thread, $($test)+
        );
        on_every_executor!(@under custom, crate::support::custom_block_on, $($test)+);
    };
    (@under $executor:ident, $block_on:expr, $($test:ident)+) => {
        mod $executor {
            $(
                #[test]
                fn $test() {
                    $block_on(super::$test());
                }
            )+
        }
    };
}

pub fn tokio_current_thread<F: Future>(future: F) -> F::Output {
    let runtime = tokio::runtime::Builder::new_current_thread().build();
    runtime.expect("the runtime starts").block_on(future)
}

/// On a worker thread, which needs the future to be `Send`.
pub fn tokio_multi_thread<F: Future<Output: Send> + Send + 'static>(future: F) -> F::Output {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).build();
    let runtime = runtime.expect("the runtime starts");
    runtime.block_on(runtime.spawn(future)).expect("the task ends")
}
