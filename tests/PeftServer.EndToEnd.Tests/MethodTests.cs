using System.Text.Json.Nodes;
using PeftServer.Cli.Client;
using PeftServer.Engine.Adapters;

namespace PeftServer.EndToEnd.Tests;

/// <summary>Every registered method through the API: a job of two steps on the sample model, then an answer from what came out.</summary>
public sealed class MethodTests(MethodTests.Server server) : IClassFixture<MethodTests.Server>
{
    /// <summary>Settings that the sample model needs, where a method's defaults are for wide ones.</summary>
    private static readonly Dictionary<string, string> Settings = new()
    {
        ["C3A"] = """{ "block_size": 64 }""",
        ["CPT"] = """{ "cpt_token_ids": [5, 6, 7, 8], "cpt_tokens_type_mask": [1, 2, 3, 4] }""",
        ["ADAMSS asa"] = """{ "use_asa": true, "asa_target_subspaces": 4, "init_warmup": 0, "final_warmup": 1, "mask_interval": 1 }""",
        ["LORA arrow"] = "{}", // see ModelOfAsync
        ["LORA corda"] = """{ "init_lora_weights": "corda" }""",
        ["LORA dora"] = """{ "use_dora": true }""",
        ["LORA eva"] = """{ "init_lora_weights": "eva" }""",
        ["LORA layers"] = """{ "layer_replication": [[0, 2], [1, 2]] }""",
        ["TRAINABLE_TOKENS"] = """{ "token_indices": [5, 6] }""",
        ["VBLORA"] = """{ "vector_length": 64 }""",
    };

    public static TheoryData<string> Methods => [.. Rows];

    /// <summary>The methods, and options of LoRA that need more of a worker or of serving.</summary>
    private static IEnumerable<string> Rows => AdapterConfig.Types.Keys.Union(Settings.Keys);

    private static CancellationToken Token => TestContext.Current.CancellationToken;

    [Theory]
    [MemberData(nameof(Methods))]
    public async Task Method_ThroughTheApi_TrainsAndAnswers(string method)
    {
        var model = await server.ModelOfAsync(method);

        var answer = await server.Api.ChatAsync(model, JsonNode.Parse("""[{ "role": "user", "content": "Is this spam?" }]""")!, 3, Token);

        model.ShouldStartWith("ft:tiny-llama:");
        answer.ShouldNotBeNull();
    }

    /// <summary>One server, and one job for each method: all are sent at once, for the worker to take one after another.</summary>
    public sealed class Server : IAsyncLifetime
    {
        private readonly Sandbox _sandbox = new();
        private readonly Dictionary<string, string> _jobs = [];
        private PeftServerProgram? _program;
        private string? _file;

        internal ApiClient Api { get; private set; } = null!;

        public async ValueTask InitializeAsync()
        {
            _program = await PeftServerProgram.UpAsync(_sandbox, "--set", "Worker:Devices=cpu", "--set", "Inference:Device=cpu");
            Api = new ApiClient(_program.Address("api"), apiKey: null);
            var rows = Enumerable.Range(1, 4).Select(i =>
                $$"""{"messages": [{"role": "user", "content": "{{i}} free prizes for you, and a long letter about each: what it is worth, who has won one, and where to send your money"}, {"role": "assistant", "content": "spam, since nobody gives away as much by mail without wanting something in return"}]}""");
            _file = await Api.UploadAsync(_sandbox.Write("spam.jsonl", string.Join('\n', rows) + "\n"), Token);
            foreach (var method in Rows.Where(method => method is not ("XLORA" or "LORA arrow")).OrderByDescending(method => method == "LORA"))
            {
                _jobs[method] = await StartAsync(method, JsonNode.Parse(Settings.GetValueOrDefault(method, "{}"))!.AsObject());
            }
        }

        /// <summary>The model that a method's job made; the job's error where it made none.</summary>
        public async Task<string> ModelOfAsync(string method)
        {
            if (method is "XLORA" or "LORA arrow" && !_jobs.ContainsKey(method))
            {
                var expert = await ModelOfAsync("LORA"); // these work with adapters that are there
                _jobs[method] = await StartAsync(method, method == "XLORA"
                    ? new JsonObject { ["adapters"] = new JsonObject { ["0"] = expert, ["1"] = expert }, ["xlora_depth"] = 2 }
                    : new JsonObject { ["arrow_config"] = new JsonObject { ["task_adapter_names"] = new JsonArray(expert, expert), ["top_k"] = 1, ["use_gks"] = true, ["gks_adapter_names"] = new JsonArray(expert) } });
            }

            while (true)
            {
                var job = await Api.GetJobAsync(_jobs[method], Token);
                switch (job.GetProperty("status").GetString())
                {
                    case "succeeded":
                        return job.GetProperty("fine_tuned_model").GetString()!;
                    case "failed" or "cancelled":
                        throw new InvalidOperationException($"{method}: {job.GetProperty("error").GetRawText()}");
                }

                await Task.Delay(100, Token);
            }
        }

        public async ValueTask DisposeAsync()
        {
            Api?.Dispose();
            if (_program is not null)
            {
                await _program.DisposeAsync();
            }

            _sandbox.Dispose();
        }

        private Task<string> StartAsync(string method, JsonObject settings)
        {
            settings["peft_type"] = method.Split(' ')[0];
            return Api.CreateJobAsync(new JsonObject
            {
                ["model"] = "tiny-llama",
                ["training_file"] = _file,
                ["peft"] = settings,
                ["training"] = new JsonObject { ["max_steps"] = 2, ["per_device_train_batch_size"] = 2 },
            }, Token);
        }
    }
}
