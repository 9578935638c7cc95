using System.IO.Compression;
using System.Net;
using System.Text;
using System.Text.Json;
using Microsoft.EntityFrameworkCore;
using PeftServer.Core.Data;
using PeftServer.Core.Models;
using PeftServer.Core.Storage;
using PeftServer.Testing;

namespace PeftServer.Api.Tests.Models;

public sealed class ModelEndpointsTests(ApiServer server, TestCluster cluster) : IClassFixture<ApiServer>
{
    private static CancellationToken Token => TestContext.Current.CancellationToken;

    [Fact]
    public async Task List_Models_ShowsBasesAndWhatJobsMade()
    {
        var name = await PublishAsync($"ft:tiny-llama:peftserver:spam:{Guid.NewGuid():N}");

        var (_, page) = await server.GetAsync("/v1/models");

        page.GetProperty("object").GetString().ShouldBe("list");
        page.GetProperty("has_more").GetBoolean().ShouldBeFalse();
        var models = page.GetProperty("data").EnumerateArray().ToDictionary(model => model.GetProperty("id").GetString()!);
        models["tiny-llama"].GetProperty("object").GetString().ShouldBe("model");
        models["tiny-llama"].GetProperty("owned_by").GetString().ShouldBe("system");
        models[name].GetProperty("owned_by").GetString().ShouldBe("peftserver");
        models[name].GetProperty("created").TryGetInt64(out _).ShouldBeTrue();
    }

    [Theory]
    [InlineData("null", "text-generation", "/v1/chat/completions")]
    [InlineData("\"SEQ_CLS\"", "text-classification", "/v1/classify")]
    [InlineData("\"TOKEN_CLS\"", "token-classification", "/v1/token_classification")]
    [InlineData("\"QUESTION_ANS\"", "question-answering", "/v1/question_answering")]
    [InlineData("\"FEATURE_EXTRACTION\"", "feature-extraction", "/v1/embeddings")]
    public async Task Get_Model_SaysWhatItIsForByItsAdaptersTask(string adapterTask, string task, string path)
    {
        var name = await PublishAsync($"ft:tiny-llama:peftserver::{Guid.NewGuid():N}", task: adapterTask);

        var (_, model) = await server.GetAsync($"/v1/models/{name}");
        var (_, page) = await server.GetAsync("/v1/models");

        model.GetProperty("task").GetString().ShouldBe(task);
        model.GetProperty("endpoints")[0].GetString().ShouldBe(path);
        page.GetProperty("data").EnumerateArray().Single(listed => listed.GetProperty("id").GetString() == name).GetProperty("task").GetString().ShouldBe(task);
        page.GetProperty("data").EnumerateArray().Single(listed => listed.GetProperty("id").GetString() == "tiny-llama").GetProperty("task").GetString().ShouldBe("text-generation");
    }

    [Theory]
    [InlineData("ft:org/base:peftserver:spam:1", "ft:org/base:peftserver:spam:1")]
    [InlineData("ft:org/base:peftserver:spam:2", "ft:org%2Fbase:peftserver:spam:2")]
    [InlineData("ft:org/base:peftserver:spam:3", "ft%3Aorg%2fbase%3Apeftserver%3Aspam%3A3")]
    [InlineData("ft:org/adapter", "ft:org%2Fadapter")]
    [InlineData("ft:100%2F:x", "ft:100%252F:x")]
    public async Task Get_IdWithSlashesAndColons_IsDecodedOnce(string name, string path)
    {
        await PublishAsync(name);

        var (status, model) = await server.GetAsync($"/v1/models/{path}");
        using var archive = await server.Client.GetAsync($"/v1/models/{path}/adapter", Token);
        using var deleted = await server.Client.DeleteAsync($"/v1/models/{path}", Token);

        status.ShouldBe(HttpStatusCode.OK);
        model.GetProperty("id").GetString().ShouldBe(name);
        archive.StatusCode.ShouldBe(HttpStatusCode.OK);
        (await deleted.Content.ReadFromJsonAsync<JsonElement>(Token)).GetProperty("id").GetString().ShouldBe(name);
        (await server.GetAsync($"/v1/models/{path}")).Status.ShouldBe(HttpStatusCode.NotFound);
    }

    [Theory]
    [InlineData("/v1/models/no-such-model")]
    [InlineData("/v1/models/no-such-model/adapter")]
    [InlineData("/v1/models/..%2F..%2Fetc%2Fpasswd")]
    [InlineData("/v1/models/%252e%252e%252fetc")]
    public async Task Get_UnknownModel_Returns404(string path)
    {
        var (status, body) = await server.GetAsync(path);

        status.ShouldBe(HttpStatusCode.NotFound);
        body.GetProperty("error").GetProperty("code").GetString().ShouldBe("model_not_found");
        body.GetProperty("error").GetProperty("param").GetString().ShouldBe("model");
    }

    [Fact]
    public async Task Adapter_OfAFineTunedModel_IsAZipOfItsFilesAlwaysTheSame()
    {
        var name = await PublishAsync($"ft:tiny-llama:peftserver::{Guid.NewGuid():N}");

        var first = await server.Client.GetByteArrayAsync($"/v1/models/{name}/adapter", Token);
        var second = await server.Client.GetByteArrayAsync($"/v1/models/{name}/adapter", Token);

        second.ShouldBe(first);
        await using var zip = new ZipArchive(new MemoryStream(first));
        zip.Entries.Select(entry => entry.FullName).ShouldBe(["adapter_config.json", "adapter_model.safetensors"]);
        using var weights = new MemoryStream();
        await using (var entry = await zip.GetEntry("adapter_model.safetensors")!.OpenAsync(Token))
        {
            await entry.CopyToAsync(weights, Token);
        }

        weights.ToArray().ShouldBe(Weights);
    }

    [Fact]
    public async Task Adapter_OfABaseModel_Returns404InWords()
    {
        var (status, body) = await server.GetAsync("/v1/models/tiny-llama/adapter");

        status.ShouldBe(HttpStatusCode.NotFound);
        body.GetProperty("error").GetProperty("message").GetString()!.ShouldContain("base model");
    }

    [Fact]
    public async Task Adapter_WithALostFile_Returns500BeforeTheZipBegins()
    {
        await using var own = await ApiServer.StartAsync(cluster);
        var name = await PublishAsync("ft:tiny-llama:peftserver::lost", own);
        Directory.Delete(Path.Combine(own.Database.Folder, "artifacts", "blobs"), recursive: true);

        var (status, body) = await own.GetAsync($"/v1/models/{name}/adapter");

        status.ShouldBe(HttpStatusCode.InternalServerError);
        body.GetProperty("error").GetProperty("code").GetString().ShouldBe("artifact_missing");
    }

    [Theory]
    [InlineData("/v1/models")]
    [InlineData("/v1/models/")]
    public async Task Delete_NoModelNamed_Returns404(string path)
    {
        using var response = await server.Client.DeleteAsync(path, Token);

        response.StatusCode.ShouldBe(HttpStatusCode.NotFound);
    }

    [Fact]
    public async Task Delete_BaseModel_IsRefused()
    {
        using var response = await server.Client.DeleteAsync("/v1/models/tiny-llama", Token);

        response.StatusCode.ShouldBe(HttpStatusCode.Forbidden);
        (await server.GetAsync("/v1/models/tiny-llama")).Status.ShouldBe(HttpStatusCode.OK);
    }

    private static byte[] Weights => [.. Enumerable.Range(0, 100_000).Select(i => (byte)(i * 7))];

    private async Task<string> PublishAsync(string name, ApiServer? on = null, string task = "null")
    {
        var services = (on ?? server).Services;
        var store = services.GetRequiredService<IArtifactStore>();
        var config = await store.PutAsync(new MemoryStream(Encoding.UTF8.GetBytes($$"""{"peft_type": "LORA", "task_type": {{task}} }""")), 1 << 20, Token);
        var weights = await store.PutAsync(new MemoryStream(Weights), 1 << 20, Token);
        var manifest = new AdapterManifest([
            new("adapter_config.json", config.Sha256, config.Bytes),
            new("adapter_model.safetensors", weights.Sha256, weights.Bytes),
        ]);
        await using var db = await services.GetRequiredService<IDbContextFactory<PeftDbContext>>().CreateDbContextAsync(Token);
        if (!await db.Adapters.AnyAsync(adapter => adapter.Digest == manifest.Digest, Token))
        {
            db.Adapters.Add(new Adapter { Digest = manifest.Digest, PeftType = "LORA", Bytes = manifest.Bytes, Files = manifest.Files });
        }

        db.Models.Add(new FineTunedModel { Name = name, BaseModel = "tiny-llama", AdapterDigest = manifest.Digest });
        await db.SaveChangesAsync(Token);
        return name;
    }
}
