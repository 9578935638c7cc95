using System.Net;
using System.Text;
using System.Text.Json;
using Microsoft.Extensions.Configuration;
using PeftServer.Api.Security;
using PeftServer.Core.Jobs;
using PeftServer.Engine.Training;
using PeftServer.Testing;

namespace PeftServer.Api.Tests;

/// <summary>The api as it runs, on free ports, over real HTTP, with a database of its own and the sample models.</summary>
public sealed class ApiServer(TestCluster cluster) : IAsyncLifetime
{
    private readonly TestDatabase _database = new(cluster);
    private WebApplication _app = null!;

    /// <summary>Settings over the tests' own; the same for every server of this class.</summary>
    public Dictionary<string, string?> Settings { get; } = [];

    public Uri Address { get; private set; } = null!;

    public Uri AdminAddress { get; private set; } = null!;

    public HttpClient Client { get; private set; } = null!;

    public IServiceProvider Services => _app.Services;

    public TestDatabase Database => _database;

    private static CancellationToken Token => TestContext.Current.CancellationToken;

    /// <summary>A server with settings of its own; the caller disposes of it.</summary>
    public static async Task<ApiServer> StartAsync(TestCluster cluster, params (string Key, string? Value)[] settings)
    {
        var server = new ApiServer(cluster);
        foreach (var (key, value) in settings)
        {
            server.Settings[key] = value;
        }

        await server.InitializeAsync();
        return server;
    }

    public async ValueTask InitializeAsync()
    {
        await _database.InitializeAsync();
        _app = ApiHost.Build([], builder =>
        {
            builder.Configuration.AddInMemoryCollection(_database.Settings);
            builder.Configuration.AddInMemoryCollection(new Dictionary<string, string?>
            {
                ["Api:Url"] = "http://127.0.0.1:0",
                ["Api:AdminUrl"] = "http://127.0.0.1:0",
                ["Models:Root"] = Path.Combine(RepositoryFolder(), "deploy", "samples", "models"),
                ["Serilog:MinimumLevel:Default"] = "Fatal",
                ["Serilog:MinimumLevel:Override:Microsoft.AspNetCore"] = "Fatal",
                ["Serilog:MinimumLevel:Override:Microsoft.EntityFrameworkCore"] = "Fatal",
            });
            builder.Configuration.AddInMemoryCollection(Settings);
        });
        await _app.StartAsync();
        (Address, AdminAddress) = Listeners.Addresses(_app);
        Client = new HttpClient { BaseAddress = Address };
    }

    public async ValueTask DisposeAsync()
    {
        Client.Dispose();
        await _app.StopAsync();
        await _app.DisposeAsync();
        await _database.DisposeAsync();
    }

    /// <summary>Sends <paramref name="json"/> and returns status and body.</summary>
    public async Task<(HttpStatusCode Status, JsonElement Body)> PostAsync(string path, string json, params (string Name, string Value)[] headers)
    {
        using var request = new HttpRequestMessage(HttpMethod.Post, path) { Content = new StringContent(json, Encoding.UTF8, "application/json") };
        foreach (var (name, value) in headers)
        {
            request.Headers.Add(name, value);
        }

        using var response = await Client.SendAsync(request, Token);
        return (response.StatusCode, await response.Content.ReadFromJsonAsync<JsonElement>(Token));
    }

    public async Task<(HttpStatusCode Status, JsonElement Body)> GetAsync(string path)
    {
        using var response = await Client.GetAsync(path, Token);
        return (response.StatusCode, await response.Content.ReadFromJsonAsync<JsonElement>(Token));
    }

    public async Task<(HttpStatusCode Status, JsonElement Body)> UploadAsync(string content, string filename = "train.jsonl", string purpose = "fine-tune")
    {
        using var form = new MultipartFormDataContent
        {
            { new StringContent(purpose), "purpose" },
            { new ByteArrayContent(Encoding.UTF8.GetBytes(content)), "file", filename },
        };
        using var response = await Client.PostAsync("/v1/files", form, Token);
        return (response.StatusCode, await response.Content.ReadFromJsonAsync<JsonElement>(Token));
    }

    /// <summary>The id of a small file of chats.</summary>
    public async Task<string> UploadChatsAsync()
    {
        var (_, file) = await UploadAsync("""{"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello."}]}""" + "\n");
        return file.GetProperty("id").GetString()!;
    }

    /// <summary>The id of a new job; <paramref name="more"/> are further fields.</summary>
    public async Task<string> CreateJobAsync(string more = "")
    {
        var (status, job) = await PostAsync("/v1/fine_tuning/jobs", $$"""{"model": "tiny-llama", "training_file": "{{await UploadChatsAsync()}}"{{more}}}""");
        status.ShouldBe(HttpStatusCode.OK, job.ToString());
        return job.GetProperty("id").GetString()!;
    }

    /// <summary>Does to a job what a worker does: its files are right, it is claimed.</summary>
    public async Task<JobLease> StartJobAsync(string id)
    {
        var claims = Services.GetRequiredService<JobClaims>();
        var validation = await claims.ClaimValidationAsync(id, "test", TimeSpan.FromMinutes(1), Token);
        await WriteAsync(validation!, transaction => transaction.Queue());
        for (; ; )
        {
            // Other tests' jobs may wait too: theirs are claimed and left alone.
            var lease = await claims.ClaimNextAsync("test", new WorkerCapacity(1, null), TimeSpan.FromMinutes(1), Token);
            if (lease!.JobId == id)
            {
                await WriteAsync(lease, transaction => transaction.BeginRun("test"));
                return lease;
            }
        }
    }

    public Task WriteAsync(JobLease lease, Action<JobTransaction> write) =>
        Services.GetRequiredService<JobWriter>().WriteAsync(lease, write, Token);

    /// <summary>What a trainer tells of a step.</summary>
    public Task MeasureAsync(JobLease lease, string message, object metrics) => WriteAsync(lease, transaction => transaction.Relay(new TrainingEvent
    {
        Number = 1,
        CreatedAt = transaction.Now.ToUnixTimeMilliseconds(),
        Type = TrainingEventType.Metrics,
        Message = message,
        Data = JsonSerializer.SerializeToElement(metrics).EnumerateObject().ToDictionary(metric => metric.Name, metric => metric.Value),
    }));

    public static string RepositoryFolder()
    {
        var folder = new DirectoryInfo(AppContext.BaseDirectory);
        while (!File.Exists(Path.Combine(folder.FullName, "PeftServer.sln")))
        {
            folder = folder.Parent!;
        }

        return folder.FullName;
    }
}
