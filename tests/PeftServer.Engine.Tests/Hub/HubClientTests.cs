using System.Net;
using PeftServer.Engine.Adapters.Lora;
using PeftServer.Engine.Hub;
using PeftServer.Engine.Models;

namespace PeftServer.Engine.Tests.Hub;

public sealed class HubClientTests : IDisposable
{
    private const string Repository = "acme/tiny";
    private readonly string _cache = Directory.CreateTempSubdirectory("peftserver-hub-").FullName;
    private readonly LocalHub _hub = new(Repository);

    private static CancellationToken Now => TestContext.Current.CancellationToken;

    public void Dispose()
    {
        _hub.Dispose();
        Directory.Delete(_cache, recursive: true);
    }

    [Fact]
    public async Task Download_Model_LaysOutTheCacheOfHuggingFace()
    {
        AddModel();
        _hub.Add("README.md", "not needed");
        _hub.Add("pytorch_model.bin", "not needed beside safetensors");
        var progress = new List<HubProgress>();

        var folder = await Client().DownloadAsync(new HubModelId(Repository), progress: new Collector(progress), cancellationToken: Now);

        folder.ShouldBe(Path.Combine(_cache, "models--acme--tiny", "snapshots", LocalHub.Commit));
        Directory.GetFiles(folder).Select(Path.GetFileName).Order().ShouldBe(["config.json", "model.safetensors", "tokenizer.json"]);
        File.ReadAllText(Path.Combine(folder, "config.json")).ShouldBe("{}");
        File.ReadAllText(Path.Combine(_cache, "models--acme--tiny", "refs", "main")).ShouldBe(LocalHub.Commit);
        new FileInfo(Path.Combine(folder, "model.safetensors")).LinkTarget!.ShouldStartWith(Path.Combine("..", "..", "blobs"));
        progress[^1].Bytes.ShouldBe(progress[^1].TotalBytes);
    }

    [Fact]
    public async Task Download_Again_FetchesNothingButTheListing()
    {
        AddModel();
        await Client().DownloadAsync(new HubModelId(Repository), cancellationToken: Now);
        _hub.Requests.Clear();

        await Client().DownloadAsync(new HubModelId(Repository), cancellationToken: Now);

        _hub.Requests.Count.ShouldBe(1);
    }

    [Fact]
    public async Task Download_TransferThatBreaks_GoesOnWhereItBroke()
    {
        AddModel();
        _hub.BreakOff = 2;

        var folder = await Client().DownloadAsync(new HubModelId(Repository), cancellationToken: Now);

        File.ReadAllBytes(Path.Combine(folder, "model.safetensors")).ShouldBe(_hub.Files["model.safetensors"]);
        _hub.Requests.Count(request => request.Path.StartsWith("/cdn/", StringComparison.Ordinal) && request.Range is not null).ShouldBeGreaterThan(0);
    }

    [Fact]
    public async Task Download_WrongDigest_IsThrownAway()
    {
        AddModel();
        _hub.Lies["model.safetensors"] = new string('a', 64);

        (await Should.ThrowAsync<HubException>(() => Client().DownloadAsync(new HubModelId(Repository), cancellationToken: Now))).Message.ShouldContain("digest");

        Directory.GetFiles(Path.Combine(_cache, "models--acme--tiny", "blobs")).ShouldNotContain(path => new FileInfo(path).Length > 1000);
    }

    [Fact]
    public async Task Download_LargeFileElsewhere_DoesNotTakeTheTokenAlong()
    {
        AddModel();

        await Client().DownloadAsync(new HubModelId(Repository), cancellationToken: Now);

        _hub.Requests.Where(request => request.Path.StartsWith("/cdn/", StringComparison.Ordinal)).ShouldAllBe(request => request.Token == null);
        _hub.Requests.Where(request => request.Path.StartsWith("/api/", StringComparison.Ordinal)).ShouldAllBe(request => request.Token == "Bearer hf_secret");
    }

    [Fact]
    public async Task Download_GatedModel_SaysWhatToDo()
    {
        AddModel();
        _hub.Refusal = HttpStatusCode.Unauthorized;

        (await Should.ThrowAsync<HubException>(() => Client().DownloadAsync(new HubModelId(Repository), cancellationToken: Now))).Message.ShouldContain("HF_TOKEN");
    }

    [Fact]
    public async Task Download_PathThatLeadsOut_IsRefused()
    {
        AddModel();
        _hub.Add("../../evil.json", "{}");

        (await Should.ThrowAsync<HubException>(() => Client().DownloadAsync(new HubModelId(Repository), cancellationToken: Now))).Message.ShouldContain("leads out");
    }

    [Fact]
    public async Task Download_SeveralGgufFiles_AsksForOne()
    {
        _hub.Add("a-Q4_K_M.gguf", "1");
        _hub.Add("a-Q8_0.gguf", "2");

        (await Should.ThrowAsync<HubException>(() => Client().DownloadAsync(new HubModelId(Repository), cancellationToken: Now))).Message.ShouldContain("a-Q8_0.gguf");
        var folder = await Client().DownloadAsync(new HubModelId(Repository), "a-Q8_0.gguf", cancellationToken: Now);
        Directory.GetFiles(folder).Select(Path.GetFileName).ShouldBe(["a-Q8_0.gguf"]);
    }

    [Fact]
    public async Task Download_Offline_TakesWhatTheCacheHas()
    {
        AddModel();
        var offline = Options() with { Offline = true };
        await Should.ThrowAsync<HubException>(() => new HubClient(offline).DownloadAsync(new HubModelId(Repository), cancellationToken: Now));
        var folder = await Client().DownloadAsync(new HubModelId(Repository), cancellationToken: Now);
        _hub.Requests.Clear();

        (await new HubClient(offline).DownloadAsync(new HubModelId(Repository), cancellationToken: Now)).ShouldBe(folder);

        _hub.Requests.ShouldBeEmpty();
    }

    [Theory]
    [InlineData("acme/tiny", "acme/tiny", "main")]
    [InlineData("acme/tiny@v1.0", "acme/tiny", "v1.0")]
    [InlineData("gpt2@refs/pr/1", "gpt2", "refs/pr/1")]
    public void Parse_Id_SplitsTheRevision(string text, string repository, string revision) =>
        HubModelId.Parse(text).ShouldBe(new HubModelId(repository, revision));

    [Theory]
    [InlineData("../etc")]
    [InlineData("a/b/c")]
    [InlineData("a/b@../../x")]
    [InlineData("a/..b")]
    [InlineData("")]
    public void Parse_WhatIsNoId_Throws(string text) => Should.Throw<HubException>(() => HubModelId.Parse(text));

    /// <summary>The three lines of a library's user, from a folder to PEFT's words.</summary>
    [Fact]
    public async Task LoadAsync_FolderInThreeLines_PrintsWhatPeftPrints()
    {
        var words = new StringWriter();
        using var model = await PretrainedModel.LoadAsync(Samples.TinyLlama, CPU, ScalarType.Float32, cancellationToken: Now);
        using var adapter = new LoraConfig { R = 8 }.CreateAdapter(model);
        adapter.PrintTrainableParameters(words);

        words.ToString().Trim().ShouldMatch(@"\Atrainable params: [\d,]+ \|\| all params: [\d,]+ \|\| trainable%: \d+\.\d{4}\z");
    }

    private void AddModel()
    {
        _hub.Add("config.json", "{}");
        _hub.Add("tokenizer.json", "{\"model\": null}");
        var weights = new byte[300_000];
        new Random(1).NextBytes(weights);
        _hub.Files["model.safetensors"] = weights;
    }

    private HubClient Client() => new(Options());

    private HubOptions Options() => new() { Endpoint = _hub.Address, CacheFolder = _cache, Token = "hf_secret", RetryDelay = TimeSpan.FromMilliseconds(10) };

    private sealed class Collector(List<HubProgress> seen) : IProgress<HubProgress>
    {
        public void Report(HubProgress value)
        {
            lock (seen)
            {
                seen.Add(value);
            }
        }
    }
}
