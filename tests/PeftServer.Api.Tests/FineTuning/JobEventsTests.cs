using System.Net;
using System.Text.Json;
using PeftServer.Testing;

namespace PeftServer.Api.Tests.FineTuning;

public sealed class JobEventsTests(ApiServer server, TestCluster cluster) : IClassFixture<ApiServer>
{
    private const string Jobs = "/v1/fine_tuning/jobs";

    private static CancellationToken Token => TestContext.Current.CancellationToken;

    [Fact]
    public async Task List_Events_AreOpenAIsNewestFirst()
    {
        var id = await server.CreateJobAsync();

        var (_, page) = await server.GetAsync($"{Jobs}/{id}/events");

        var data = page.GetProperty("data").EnumerateArray().ToList();
        data[^1].GetProperty("message").GetString().ShouldBe($"Created fine-tuning job: {id}");
        data[0].GetProperty("message").GetString()!.ShouldStartWith("Validating training file: file-");
        data[0].GetProperty("object").GetString().ShouldBe("fine_tuning.job.event");
        data[0].GetProperty("type").GetString().ShouldBe("message");
        data[0].GetProperty("level").GetString().ShouldBe("info");
        data[0].GetProperty("data").GetRawText().ShouldBe("""{"status":"validating_files"}""");
        data[^1].GetProperty("data").GetRawText().ShouldBe("{}");
        page.GetProperty("last_id").GetString().ShouldBe(data[^1].GetProperty("id").GetString());

        var (_, next) = await server.GetAsync($"{Jobs}/{id}/events?limit=1&after={data[0].GetProperty("id").GetString()}");
        next.GetProperty("data")[0].GetProperty("id").GetString().ShouldBe(data[1].GetProperty("id").GetString());
        next.GetProperty("has_more").GetBoolean().ShouldBe(data.Count > 2);
    }

    [Fact]
    public async Task Stream_RunningJob_TellsEveryEventOnceAndEndsWithTheJob()
    {
        await using var own = await ApiServer.StartAsync(cluster);
        var id = await own.CreateJobAsync();
        using var stream = await OpenAsync(own, id);
        stream.ContentType.ShouldBe("text/event-stream");

        var lease = await own.StartJobAsync(id);
        await own.MeasureAsync(lease, "Step 1/2: training loss=0.50", new { step = 1, train_loss = 0.5 });
        await own.PostAsync($"{Jobs}/{id}/cancel", "");
        await own.WriteAsync(lease, transaction => transaction.Cancel());

        var events = await stream.ReadToEndAsync();
        events.Select(e => e.Number).ShouldBe(Enumerable.Range(1, events.Count));
        events.Single(e => e.Data.GetProperty("type").GetString() == "metrics").Data.GetProperty("data").GetProperty("train_loss").GetDouble().ShouldBe(0.5);
        events[^1].Data.GetProperty("data").GetProperty("status").GetString().ShouldBe("cancelled");
    }

    [Fact]
    public async Task Stream_LastEventId_GoesOnBehindIt()
    {
        var id = await server.CreateJobAsync();
        await server.PostAsync($"{Jobs}/{id}/cancel", "");
        using var whole = await OpenAsync(server, id);
        var all = await whole.ReadToEndAsync();

        using var rest = await OpenAsync(server, id, lastEventId: "1");

        (await rest.ReadToEndAsync()).Select(e => e.Number).ShouldBe(all.Skip(1).Select(e => e.Number));
    }

    [Fact]
    public async Task Stream_NothingFollowsAndTheJobIsOver_Returns204SoThatBrowsersStopAsking()
    {
        var id = await server.CreateJobAsync();
        await server.PostAsync($"{Jobs}/{id}/cancel", "");
        using var whole = await OpenAsync(server, id);
        var last = (await whole.ReadToEndAsync())[^1].Number;

        using var nothing = await OpenAsync(server, id, lastEventId: $"{last}");

        nothing.Status.ShouldBe(HttpStatusCode.NoContent);
    }

    [Theory]
    [InlineData("x")]
    [InlineData("-1")]
    [InlineData("99999999999")]
    public async Task Stream_WrongLastEventId_Returns400(string lastEventId)
    {
        var id = await server.CreateJobAsync();

        using var refused = await OpenAsync(server, id, lastEventId);

        refused.Status.ShouldBe(HttpStatusCode.BadRequest);
    }

    [Fact]
    public async Task Stream_NothingHappens_IsKeptAliveByComments()
    {
        await using var own = await ApiServer.StartAsync(cluster, ("Api:KeepAliveSeconds", "0.2"));
        var id = await own.CreateJobAsync();
        using var stream = await OpenAsync(own, id);

        while (await stream.ReadLineAsync() is { } line && line != ": keep-alive")
        {
        }

        await own.PostAsync($"{Jobs}/{id}/cancel", "");
        (await stream.ReadToEndAsync())[^1].Data.GetProperty("data").GetProperty("status").GetString().ShouldBe("cancelled");
    }

    [Fact]
    public async Task Stream_ServerStops_Ends()
    {
        var own = await ApiServer.StartAsync(cluster);
        var id = await own.CreateJobAsync();
        using var stream = await OpenAsync(own, id);
        await stream.ReadLineAsync();

        await own.DisposeAsync().AsTask().WaitAsync(TimeSpan.FromSeconds(4), Token);

        await stream.ReadToEndAsync();
    }

    private static async Task<EventStream> OpenAsync(ApiServer server, string id, string? lastEventId = null)
    {
        using var request = new HttpRequestMessage(HttpMethod.Get, $"{Jobs}/{id}/events");
        request.Headers.Add("Accept", "text/event-stream");
        if (lastEventId is not null)
        {
            request.Headers.Add("Last-Event-ID", lastEventId);
        }

        var response = await server.Client.SendAsync(request, HttpCompletionOption.ResponseHeadersRead, Token);
        return new EventStream(response, new StreamReader(await response.Content.ReadAsStreamAsync(Token)));
    }

    private sealed record EventStream(HttpResponseMessage Response, StreamReader Reader) : IDisposable
    {
        public HttpStatusCode Status => Response.StatusCode;

        public string? ContentType => Response.Content.Headers.ContentType?.MediaType;

        public async Task<string?> ReadLineAsync() => await Reader.ReadLineAsync(Token).AsTask().WaitAsync(TimeSpan.FromSeconds(20), Token);

        public async Task<List<(int Number, JsonElement Data)>> ReadToEndAsync()
        {
            var events = new List<(int, JsonElement)>();
            var number = 0;
            while (await ReadLineAsync() is { } line)
            {
                if (line.StartsWith("id: ", StringComparison.Ordinal))
                {
                    number = int.Parse(line[4..], System.Globalization.CultureInfo.InvariantCulture);
                }
                else if (line.StartsWith("data: ", StringComparison.Ordinal))
                {
                    events.Add((number, JsonSerializer.Deserialize<JsonElement>(line[6..])));
                }
            }

            return events;
        }

        public void Dispose()
        {
            Reader.Dispose();
            Response.Dispose();
        }
    }
}
