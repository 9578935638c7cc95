using System.IO.Compression;
using System.Text.Json;
using System.Text.Json.Nodes;
using PeftServer.Cli.Client;

namespace PeftServer.EndToEnd.Tests;

/// <summary>The adapters of AdapterHub are methods like any other: a job trains one, the API hands it out and answers with it.</summary>
public sealed class AdapterHubTests(AdapterHubTests.Server server) : IClassFixture<AdapterHubTests.Server>
{
    private static CancellationToken Token => TestContext.Current.CancellationToken;

    [Theory]
    [InlineData("seq_bn", "adapters.default.adapter_up.weight")]
    [InlineData("pfeiffer", "output_adapters")]
    [InlineData("seq_bn[reduction_factor=16]", "adapter_down.0.weight")]
    [InlineData("double_seq_bn", "attention_adapters")]
    [InlineData("houlsby", "attention_adapters")]
    [InlineData("par_bn", "output_adapters")]
    [InlineData("seq_bn_inv", "invertible_adapters.default.F.0.weight")]
    [InlineData("compacter[reduction_factor=8]", "shared_parameters.default.phm_rule")]
    [InlineData("compacter++[reduction_factor=8]", "adapter_up.W_left")]
    [InlineData("prefix_tuning[prefix_length=8,bottleneck_size=32]", "prefix_tunings.default.self_prefix.wte.weight")]
    [InlineData("prefix_tuning_flat[prefix_length=8]", "self_prefix.control_trans")]
    [InlineData("lora", "q_proj.loras.default.lora_A")]
    [InlineData("ia3", "k_proj.loras.default.lora_B")]
    [InlineData("dora", "loras.default.m.weight")]
    [InlineData("vera[attn_matrices=['q']]", "shared_parameters.default.lora_A")]
    [InlineData("prompt_tuning", "prompt_tunings.default.prompt_embedding.weight")]
    [InlineData("loreft", "projection.parametrizations.weight.original")]
    [InlineData("noreft", "units.1.projection.weight")]
    [InlineData("direft[suffix_positions=2]", "units.0.learned_source.weight")]
    [InlineData("prefix_tuning[prefix_length=8,bottleneck_size=32]|par_bn[reduction_factor=16]", "output_adapters")]
    [InlineData("mam", "output_adapters")]
    [InlineData("unipelt", "prefix_tuning.prefix_gates.default.weight")]
    public async Task Job_WithALibrarysConfig_TrainsDownloadsAndServes(string config, string key)
    {
        using var api = new ApiClient(server.Api, apiKey: null);
        var job = await api.CreateJobAsync(
            new JsonObject
            {
                ["model"] = "tiny-llama",
                ["training_file"] = server.File,
                ["peft"] = new JsonObject { ["peft_type"] = "ADAPTERS", ["config"] = config },
                ["training"] = new JsonObject { ["max_steps"] = 3, ["per_device_train_batch_size"] = 4 },
            },
            Token);
        var events = new List<string>();
        await foreach (var said in api.FollowAsync(job, Token))
        {
            events.Add(said.Message);
        }

        var done = await api.GetJobAsync(job, Token);
        done.GetProperty("status").GetString().ShouldBe("succeeded", string.Join('\n', events));
        var model = done.GetProperty("fine_tuned_model").GetString()!;
        await CheckFilesAsync(api, model, key);
        var question = new JsonArray(new JsonObject { ["role"] = "user", ["content"] = "Win a prize now" });
        (await api.ChatAsync(model, question, 4, Token)).ShouldNotBeNull();
    }

    [Theory]
    [InlineData("""{ "peft_type": "ADAPTERS", "config": "seq_bn[inv_adapter='glow']" }""", "inv_adapter")]
    [InlineData("""{ "peft_type": "ADAPTERS", "config": "seq_bn[scaling='big']" }""", "scaling")]
    [InlineData("""{ "peft_type": "ADAPTERS", "config": "sequential" }""", "Known: seq_bn")]
    [InlineData("""{ "peft_type": "ADAPTERS", "config": { "mh_adapter": true, "output_adapter": true, "reduction_factor": 8 } }""", "non_linearity")]
    public async Task Job_WithAWrongConfig_IsRefusedNamingTheField(string peft, string named)
    {
        using var api = new ApiClient(server.Api, apiKey: null);

        var refused = await Should.ThrowAsync<Exception>(() => api.CreateJobAsync(
            new JsonObject { ["model"] = "tiny-llama", ["training_file"] = server.File, ["peft"] = JsonNode.Parse(peft) }, Token));

        refused.Message.ShouldContain("400");
        refused.Message.ShouldContain(named);
    }

    private static async Task CheckFilesAsync(ApiClient api, string model, string key)
    {
        using var archive = new MemoryStream();
        await api.DownloadAdapterAsync(model, archive, Token);
        using var zip = new ZipArchive(archive);
        using var config = JsonDocument.Parse(zip.GetEntry("adapter_config.json")!.Open());
        config.RootElement.GetProperty("model_class").GetString().ShouldBe("LlamaForCausalLM");
        config.RootElement.GetProperty("version").GetString().ShouldStartWith("adapters.");
        using var weights = new BinaryReader(zip.GetEntry("adapter.safetensors")!.Open());
        using var header = JsonDocument.Parse(weights.ReadBytes((int)weights.ReadInt64()));
        header.RootElement.EnumerateObject().ShouldContain(entry => entry.Name.Contains(key));
    }

    /// <summary>One server for all of them, with a small data set.</summary>
    public sealed class Server : IAsyncLifetime
    {
        private readonly Sandbox _sandbox = new();
        private PeftServerProgram? _program;

        public Uri Api => _program!.Address("api");

        public string File { get; private set; } = "";

        public async ValueTask InitializeAsync()
        {
            _program = await PeftServerProgram.UpAsync(_sandbox, "--set", "Worker:Devices=cpu", "--set", "Inference:Device=cpu");
            var rows = System.IO.File.ReadLines(Path.Combine(AppContext.BaseDirectory, "samples", "datasets", "spam", "train.jsonl")).Take(16);
            using var api = new ApiClient(Api, apiKey: null);
            File = await api.UploadAsync(_sandbox.Write("spam.jsonl", string.Join('\n', rows) + "\n"), CancellationToken.None);
        }

        public async ValueTask DisposeAsync()
        {
            if (_program is not null)
            {
                await _program.DisposeAsync();
            }

            _sandbox.Dispose();
        }
    }
}
