using System.Net.Http.Headers;
using System.Net.Http.Json;
using System.Text;
using System.Text.Json;
using Microsoft.AspNetCore.Builder;
using PeftServer.Engine.Native;
using PeftServer.Testing;

namespace PeftServer.Inference.Tests;

/// <summary>The real host with models of every kind, over HTTP, on a real PostgreSQL; one for the tests of a class.</summary>
public sealed class RunningHost(TestCluster cluster) : IAsyncLifetime
{
    private const string Key = "internal-key-of-the-tests";
    private readonly HttpClient _client = new();
    private readonly TestDatabase _database = new(cluster);
    private readonly SmallModels _models = new();
    private WebApplication _host = null!;

    private static CancellationToken Now => TestContext.Current.CancellationToken;

    public async ValueTask InitializeAsync()
    {
        TorchLoader.Load();
        await _database.InitializeAsync();
        await Core.Data.PeftDatabase.MigrateAsync(_database.ConnectionString, Now);
        var settings = _database.Settings.Append(new("Models:Root", _models.Root))
            .Append(new("Inference:InternalKey", Key)).Append(new("Inference:Device", "cpu")).Append(new("Inference:Url", "http://127.0.0.1:0"));
        _host = InferenceHost.Build([.. settings.Select(setting => $"--{setting.Key}={setting.Value}")]);
        await _host.StartAsync(Now);
        _client.BaseAddress = new Uri(_host.Urls.First());
        _client.DefaultRequestHeaders.Authorization = new AuthenticationHeaderValue("Bearer", Key);
    }

    public async ValueTask DisposeAsync()
    {
        _client.Dispose();
        await _host.DisposeAsync();
        await _database.DisposeAsync();
        _models.Dispose();
    }

    /// <summary>Where it listens.</summary>
    public Uri Address => _client.BaseAddress!;

    public Task<HttpResponseMessage> PostAsync(string path, string json) => SendAsync(path, new StringContent(json, Encoding.UTF8, "application/json"));

    public Task<HttpResponseMessage> SendAsync(string path, HttpContent body) => _client.PostAsync(path, body, Now);

    /// <summary>The body of an answer that must be 200.</summary>
    public async Task<JsonElement> AskAsync(string path, string json)
    {
        using var response = await PostAsync(path, json);
        var body = await response.Content.ReadFromJsonAsync<JsonElement>(Now);
        ((int)response.StatusCode).ShouldBe(200, body.ToString());
        return body;
    }

    /// <summary>The error of an answer that must have this status.</summary>
    public async Task<JsonElement> RefusedAsync(string path, string json, int status = 400)
    {
        using var response = await PostAsync(path, json);
        var body = await response.Content.ReadFromJsonAsync<JsonElement>(Now);
        ((int)response.StatusCode).ShouldBe(status, body.ToString());
        return body.GetProperty("error");
    }
}
