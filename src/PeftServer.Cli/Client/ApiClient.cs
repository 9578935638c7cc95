using System.Net;
using System.Net.Http.Headers;
using System.Net.Http.Json;
using System.Net.ServerSentEvents;
using System.Runtime.CompilerServices;
using System.Text;
using System.Text.Json;
using System.Text.Json.Nodes;

namespace PeftServer.Cli.Client;

/// <summary>An event of a job: its number in the stream and its object.</summary>
internal sealed record ServerEvent(string Id, JsonElement Body)
{
    public string Type => Body.GetProperty("type").GetString()!;

    public string Message => Body.GetProperty("message").GetString()!;

    /// <summary>A number of a metrics event, or null.</summary>
    public double? Metric(string name) =>
        Body.TryGetProperty("data", out var data) && data.ValueKind == JsonValueKind.Object
        && data.TryGetProperty(name, out var value) && value.ValueKind == JsonValueKind.Number ? value.GetDouble() : null;
}

/// <summary>The calls of the API that commands make, as any client would. Failures are <see cref="CommandException"/>s with the server's words.</summary>
internal sealed class ApiClient : IDisposable
{
    private readonly HttpClient _http;

    public ApiClient(Uri address, string? apiKey)
    {
        _http = new HttpClient { BaseAddress = address, Timeout = TimeSpan.FromMinutes(5) };
        if (!string.IsNullOrEmpty(apiKey))
        {
            _http.DefaultRequestHeaders.Authorization = new AuthenticationHeaderValue("Bearer", apiKey);
        }
    }

    /// <summary>Uploads a data set. Returns its file id.</summary>
    public Task<string> UploadAsync(string path, CancellationToken cancellationToken) => UploadAsync(path, null, cancellationToken);

    /// <summary>Uploads a data set, or its first <paramref name="rows"/> lines that say something. Returns its file id.</summary>
    public async Task<string> UploadAsync(string path, int? rows, CancellationToken cancellationToken)
    {
        await using Stream file = rows is null
            ? File.OpenRead(path)
            : new MemoryStream(Encoding.UTF8.GetBytes(string.Join('\n', File.ReadLines(path).Where(line => !string.IsNullOrWhiteSpace(line)).Take(rows.Value))));
        using var form = new MultipartFormDataContent
        {
            { new StringContent("fine-tune"), "purpose" },
            { new StreamContent(file), "file", Path.GetFileName(path) },
        };
        using var answer = await _http.PostAsync(new Uri("/v1/files", UriKind.Relative), form, cancellationToken);
        return (await ReadAsync(answer, $"Uploading {path}", cancellationToken)).GetProperty("id").GetString()!;
    }

    /// <summary>Creates a fine-tuning job. Returns its id.</summary>
    public async Task<string> CreateJobAsync(JsonNode request, CancellationToken cancellationToken)
    {
        using var answer = await _http.PostAsJsonAsync(new Uri("/v1/fine_tuning/jobs", UriKind.Relative), request, cancellationToken);
        return (await ReadAsync(answer, "Creating the job", cancellationToken)).GetProperty("id").GetString()!;
    }

    public async Task<JsonElement> GetJobAsync(string job, CancellationToken cancellationToken)
    {
        using var answer = await _http.GetAsync(new Uri($"/v1/fine_tuning/jobs/{job}", UriKind.Relative), cancellationToken);
        return await ReadAsync(answer, "Reading the job", cancellationToken);
    }

    /// <summary>The events of a job from the first to the last. A lost connection is taken up where it broke.</summary>
    public async IAsyncEnumerable<ServerEvent> FollowAsync(string job, [EnumeratorCancellation] CancellationToken cancellationToken)
    {
        var last = "";
        while (true)
        {
            var events = ReadEventsAsync(job, last, cancellationToken).GetAsyncEnumerator(cancellationToken);
            await using (events)
            {
                while (await MoveAsync(events))
                {
                    last = events.Current.Id;
                    yield return events.Current;
                }
            }
            if (IsFinal((await GetJobAsync(job, cancellationToken)).GetProperty("status").GetString()!))
            {
                yield break;
            }
            await Task.Delay(TimeSpan.FromSeconds(1), cancellationToken);
        }
    }

    /// <summary>The answer of a model, greedy.</summary>
    public async Task<string> ChatAsync(string model, JsonNode messages, int maxTokens, CancellationToken cancellationToken)
    {
        var request = new JsonObject
        {
            ["model"] = model,
            ["messages"] = messages.DeepClone(),
            ["max_tokens"] = maxTokens,
            ["temperature"] = 0,
        };
        for (var attempt = 1; ; attempt++)
        {
            using var answer = await _http.PostAsJsonAsync(new Uri("/v1/chat/completions", UriKind.Relative), request, cancellationToken);
            if (answer.StatusCode == HttpStatusCode.ServiceUnavailable && attempt < 10)
            {
                await Task.Delay(answer.Headers.RetryAfter?.Delta ?? TimeSpan.FromSeconds(1), cancellationToken);
                continue;
            }
            var body = await ReadAsync(answer, $"Asking {model}", cancellationToken);
            return body.GetProperty("choices")[0].GetProperty("message").GetProperty("content").GetString() ?? "";
        }
    }

    /// <summary>Writes the zip archive of a fine-tuned model's adapter to <paramref name="target"/>.</summary>
    public async Task DownloadAdapterAsync(string model, Stream target, CancellationToken cancellationToken)
    {
        var address = new Uri($"/v1/models/{Uri.EscapeDataString(model)}/adapter", UriKind.Relative);
        using var answer = await _http.GetAsync(address, HttpCompletionOption.ResponseHeadersRead, cancellationToken);
        if (!answer.IsSuccessStatusCode)
        {
            await ReadAsync(answer, $"Exporting {model}", cancellationToken);
        }
        await answer.Content.CopyToAsync(target, cancellationToken);
    }

    public void Dispose() => _http.Dispose();

    private static bool IsFinal(string status) => status is "succeeded" or "failed" or "cancelled";

    private async IAsyncEnumerable<ServerEvent> ReadEventsAsync(string job, string last, [EnumeratorCancellation] CancellationToken cancellationToken)
    {
        using var request = new HttpRequestMessage(HttpMethod.Get, $"/v1/fine_tuning/jobs/{job}/events");
        request.Headers.Accept.ParseAdd("text/event-stream");
        if (last.Length > 0)
        {
            request.Headers.Add("Last-Event-ID", last);
        }
        using var answer = await _http.SendAsync(request, HttpCompletionOption.ResponseHeadersRead, cancellationToken);
        answer.EnsureSuccessStatusCode();
        await using var body = await answer.Content.ReadAsStreamAsync(cancellationToken);
        await foreach (var item in SseParser.Create(body).EnumerateAsync(cancellationToken))
        {
            yield return new ServerEvent(item.EventId ?? "", JsonElement.Parse(item.Data));
        }
    }

    private static async Task<bool> MoveAsync(IAsyncEnumerator<ServerEvent> events)
    {
        try
        {
            return await events.MoveNextAsync();
        }
        catch (Exception error) when (error is HttpRequestException or IOException)
        {
            return false;
        }
    }

    private static async Task<JsonElement> ReadAsync(HttpResponseMessage answer, string what, CancellationToken cancellationToken)
    {
        var text = await answer.Content.ReadAsStringAsync(cancellationToken);
        return answer.IsSuccessStatusCode
            ? JsonElement.Parse(text)
            : throw new CommandException($"{what} failed: {(int)answer.StatusCode} {text}", ExitCode.Failed);
    }
}
