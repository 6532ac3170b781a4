//! What the SDK needs from whoever runs it: an HTTP client and a timer, here by hyper over smol, without
//! tokio. One connection a request, and no TLS: for an emulator, or a proxy on the same machine.

use std::time::Duration;

use aws_sdk_sqs::config::http::{HttpRequest, HttpResponse};
use aws_sdk_sqs::config::{AsyncSleep, HttpClient, RuntimeComponents, Sleep};
use aws_sdk_sqs::error::{BoxError, ConnectorError};
use aws_smithy_runtime_api::client::http::{
    HttpConnector, HttpConnectorFuture, HttpConnectorSettings, SharedHttpConnector,
};
use aws_smithy_types::body::SdkBody;
use http_body_util::BodyExt;
use hyper::client::conn::http1;
use hyper::header::{HOST, HeaderValue};
use smol::net::TcpStream;
use smol_hyper::rt::FuturesIo;

/// The HTTP client.
#[derive(Clone, Debug)]
pub(crate) struct Http;

impl HttpClient for Http {
    fn http_connector(
        &self,
        _: &HttpConnectorSettings,
        _: &RuntimeComponents,
    ) -> SharedHttpConnector {
        SharedHttpConnector::new(self.clone())
    }
}

impl HttpConnector for Http {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        HttpConnectorFuture::new(async { exchange(request).await.map_err(ConnectorError::io) })
    }
}

async fn exchange(request: HttpRequest) -> Result<HttpResponse, BoxError> {
    let mut request = request.try_into_http1x()?;
    let authority = request.uri().authority().ok_or("the request names no host")?.clone();
    request.headers_mut().insert(HOST, HeaderValue::from_str(authority.as_str())?);
    let path = request.uri().path_and_query().map_or("/", |path| path.as_str()).parse()?;
    *request.uri_mut() = path;

    let stream = TcpStream::connect((authority.host(), authority.port_u16().unwrap_or(80))).await?;
    let (mut sender, connection) = http1::handshake(FuturesIo::new(stream)).await?;
    let answer = async {
        let (head, body) = sender.send_request(request).await?.into_parts();
        Ok::<_, BoxError>((head, body.collect().await?.to_bytes()))
    };
    // The connection moves the bytes; it ends by itself only where something is wrong.
    let moved = async {
        connection.await?;
        std::future::pending().await
    };
    let (head, body) = smol::future::or(answer, moved).await?;
    Ok(hyper::Response::from_parts(head, SdkBody::from(body)).try_into()?)
}

/// The timer, which the SDK needs for its time limits.
#[derive(Clone, Debug)]
pub(crate) struct Timer;

impl AsyncSleep for Timer {
    fn sleep(&self, duration: Duration) -> Sleep {
        Sleep::new(async move {
            smol::Timer::after(duration).await;
        })
    }
}
