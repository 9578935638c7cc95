using System.Net;
using System.Net.Http.Headers;

namespace PeftServer.Engine.Hub;

/// <summary>
/// Fetches models from the Hugging Face Hub into the cache that huggingface_hub uses: <c>blobs</c> by their digests, a folder of links
/// for each commit, the commit of each branch in <c>refs</c>.
/// </summary>
public sealed class HubClient : IDisposable
{
    private readonly HubOptions _options;
    private readonly HttpClient _http;

    public HubClient(HubOptions options)
    {
        _options = options;

        // Redirects are followed here: the token goes to the Hub and never to where it sends us.
        _http = new HttpClient(new SocketsHttpHandler { AllowAutoRedirect = false, ConnectTimeout = TimeSpan.FromSeconds(15) }) { Timeout = Timeout.InfiniteTimeSpan };
        _http.DefaultRequestHeaders.UserAgent.Add(new ProductInfoHeaderValue("peftserver", "1"));
    }

    /// <summary>
    /// Fetches what a model needs and gives its folder. What the cache holds is not fetched again; a transfer that broke goes on where
    /// it broke. <paramref name="file"/> names the weights where a repository has several. Throws <see cref="HubException"/>.
    /// </summary>
    public async Task<string> DownloadAsync(HubModelId model, string? file = null, IProgress<HubProgress>? progress = null, CancellationToken cancellationToken = default)
    {
        var cache = new HubCache(_options.CacheFolder, model);
        if (_options.Offline)
        {
            return cache.Snapshot() ?? throw new HubException($"{model} is not in {_options.CacheFolder}, and HF_HUB_OFFLINE forbids to fetch it.");
        }

        var listing = await ListAsync(model, cancellationToken);
        var files = listing.Needed(file);
        var meter = new Meter(files.Sum(needed => needed.Size ?? 0), progress);
        await Parallel.ForEachAsync(
            files, new ParallelOptions { MaxDegreeOfParallelism = _options.Parallelism, CancellationToken = cancellationToken },
            async (needed, stopping) => await FetchAsync(cache, model, listing.Commit, needed, meter, stopping));
        cache.Point(model.Revision, listing.Commit);
        return cache.SnapshotOf(listing.Commit);
    }

    public void Dispose() => _http.Dispose();

    private async Task<HubListing> ListAsync(HubModelId model, CancellationToken cancellationToken)
    {
        var address = At($"/api/models/{model.Repository}/revision/{Uri.EscapeDataString(model.Revision)}?blobs=true");
        for (var attempt = 1; ; attempt++)
        {
            try
            {
                using var response = await SendAsync(HttpMethod.Get, address, from: 0, cancellationToken);
                Check(response, model, model.Revision);
                return HubListing.Parse(await response.Content.ReadAsStringAsync(cancellationToken), model.ToString());
            }
            catch (Exception e) when (IsPassing(e, cancellationToken) && attempt < _options.Attempts)
            {
                await Task.Delay(_options.RetryDelay * Math.Pow(2, attempt - 1), cancellationToken);
            }
            catch (HttpRequestException e)
            {
                throw new HubException($"{_options.Endpoint} cannot be reached: {e.Message}", e);
            }
        }
    }

    private async Task FetchAsync(HubCache cache, HubModelId model, string commit, HubFile file, Meter meter, CancellationToken cancellationToken)
    {
        if (cache.Has(commit, file))
        {
            meter.Add(file.Path, file.Size ?? 0);
            return;
        }

        var address = At($"/{model.Repository}/resolve/{commit}/{string.Join('/', file.Path.Split('/').Select(Uri.EscapeDataString))}");
        await using var target = await cache.OpenAsync(file, cancellationToken);
        for (var attempt = 1; !target.IsDone; attempt++)
        {
            try
            {
                var start = target.Length;
                using var response = await SendAsync(HttpMethod.Get, address, start, cancellationToken);
                if (response.StatusCode is HttpStatusCode.RequestedRangeNotSatisfiable && start == file.Size)
                {
                    break; // all of it is here; its digest says whether it is right
                }

                Check(response, model, file.Path);
                if (start > 0 && response.StatusCode is not HttpStatusCode.PartialContent)
                {
                    target.Restart(); // the server sends everything again
                }

                await using var stream = await response.Content.ReadAsStreamAsync(cancellationToken);
                await target.CopyFromAsync(stream, bytes => meter.Add(file.Path, bytes), cancellationToken);
                break;
            }
            catch (Exception e) when (IsPassing(e, cancellationToken))
            {
                if (attempt >= _options.Attempts)
                {
                    throw new HubException($"{file.Path} of {model} broke off {attempt} times: {e.Message} Run the same again; what is here is kept.", e);
                }

                await Task.Delay(_options.RetryDelay * Math.Pow(2, attempt - 1), cancellationToken);
            }
        }

        await target.FinishAsync(commit, cancellationToken);
    }

    /// <summary>One request, along up to five redirects.</summary>
    private async Task<HttpResponseMessage> SendAsync(HttpMethod method, Uri address, long from, CancellationToken cancellationToken)
    {
        for (var hops = 0; hops <= 5; hops++)
        {
            using var request = new HttpRequestMessage(method, address);
            if (_options.Token is { } token && IsHub(address))
            {
                request.Headers.Authorization = new AuthenticationHeaderValue("Bearer", token);
            }

            if (from > 0)
            {
                request.Headers.Range = new RangeHeaderValue(from, null);
            }

            var response = await _http.SendAsync(request, HttpCompletionOption.ResponseHeadersRead, cancellationToken);
            if (response.StatusCode is not (HttpStatusCode.Moved or HttpStatusCode.Found or HttpStatusCode.TemporaryRedirect or HttpStatusCode.PermanentRedirect)
                || response.Headers.Location is not { } next)
            {
                return response;
            }

            response.Dispose();
            next = next.IsAbsoluteUri ? next : new Uri(address, next);
            address = next.Scheme == Uri.UriSchemeHttps || (next.Scheme == Uri.UriSchemeHttp && address.Scheme == Uri.UriSchemeHttp)
                ? next
                : throw new HubException($"The Hub sends us to {next}, which is not safe to follow.");
        }

        throw new HubException($"The Hub sends us on and on from {address}.");
    }

    /// <summary>A mirror may stand below a path of its own.</summary>
    private Uri At(string path) => new($"{_options.Endpoint.AbsoluteUri.TrimEnd('/')}{path}");

    private bool IsHub(Uri address) => address.Scheme == _options.Endpoint.Scheme && address.Host == _options.Endpoint.Host && address.Port == _options.Endpoint.Port;

    private static void Check(HttpResponseMessage response, HubModelId model, string what)
    {
        if (response.IsSuccessStatusCode)
        {
            return;
        }

        throw response.StatusCode switch
        {
            HttpStatusCode.Unauthorized or HttpStatusCode.Forbidden => new HubException(
                $"{model} is gated, private or not there. Ask for access on its page, and set HF_TOKEN to a token that may read it."),
            HttpStatusCode.NotFound => new HubException($"The Hub has no '{what}' of {model}."),
            >= HttpStatusCode.InternalServerError or HttpStatusCode.TooManyRequests => new HttpRequestException($"the Hub answers {(int)response.StatusCode}", null, response.StatusCode),
            var code => new HubException($"The Hub answers {(int)code} for '{what}' of {model}."),
        };
    }

    /// <summary>Whether a failure may pass by itself.</summary>
    private static bool IsPassing(Exception e, CancellationToken cancellationToken) =>
        !cancellationToken.IsCancellationRequested && e is HttpRequestException or IOException and not FileNotFoundException;

    /// <summary>Adds up what has come, from several files at once.</summary>
    private sealed class Meter(long total, IProgress<HubProgress>? progress)
    {
        private long _bytes;

        public void Add(string file, long bytes) => progress?.Report(new HubProgress(file, Interlocked.Add(ref _bytes, bytes), total));
    }
}
