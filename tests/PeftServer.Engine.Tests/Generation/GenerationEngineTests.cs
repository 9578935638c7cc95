using PeftServer.Engine.Adapters;
using PeftServer.Engine.Adapters.AdaptionPrompt;
using PeftServer.Engine.Adapters.Lora;
using PeftServer.Engine.Adapters.MultitaskPromptTuning;
using PeftServer.Engine.Adapters.Poly;
using PeftServer.Engine.Adapters.PrefixTuning;
using PeftServer.Engine.Adapters.PromptTuning;
using PeftServer.Engine.Generation;
using PeftServer.Engine.Models;
using PeftServer.Engine.Native;

namespace PeftServer.Engine.Tests.Generation;

/// <summary>Adapters of every kind of site, side by side on one base.</summary>
public sealed class GenerationEngineTests : IDisposable
{
    private readonly string _folder = Directory.CreateTempSubdirectory("peftserver-generation-").FullName;

    public void Dispose() => Directory.Delete(_folder, recursive: true);

    [Fact]
    public async Task Generate_ManyKindsOfAdaptersAtOnce_EachAnswersAsWithoutTheOthers()
    {
        var adapters = Adapters();
        var requests = adapters.SelectMany(adapter => new[] { Request(adapter, [5, 9, 14]), Request(adapter, [.. Enumerable.Range(20, 40)]) })
            .Append(Request(adapters[^1], [5, 9, 14], task: 1)).Append(Request(null, [5, 9, 14])).ToList();

        // Steps of few tokens: prompts go in by pieces, virtual tokens with the first of them.
        using var busy = new GenerationEngine(new GenerationEngineOptions { ModelFolder = Samples.TinyLlama, Device = "cpu", MaxBatchTokens = 16 });
        var together = await Task.WhenAll(requests.Select(request => TokensAsync(busy, request)));

        using var quiet = new GenerationEngine(new GenerationEngineOptions { ModelFolder = Samples.TinyLlama, Device = "cpu", MaxSequences = 1 });
        for (var i = 0; i < requests.Count; i++)
        {
            together[i].ShouldBe(await TokensAsync(quiet, requests[i]), $"request {i}");
        }

        together.Select(tokens => string.Join(' ', tokens)).Distinct().Count().ShouldBeGreaterThan(adapters.Count); // they differ
        together[^2].ShouldNotBe(together[^4]); // the tasks of one adapter too
    }

    [Fact]
    public async Task Generate_PromptThatLeavesNoRoom_FailsAloneAndSaysWhy()
    {
        using var engine = new GenerationEngine(new GenerationEngineOptions { ModelFolder = Samples.TinyLlama, Device = "cpu" });
        var most = (await engine.Loaded).MaxLength;
        var adapter = Adapters()[0];

        var fits = TokensAsync(engine, Request(adapter, [.. Enumerable.Repeat(7, most - 8 - 2)]));
        var fault = await Should.ThrowAsync<NotSupportedException>(() => TokensAsync(engine, Request(adapter, [.. Enumerable.Repeat(7, most - 8)])));

        fault.Message.ShouldContain("8 virtual ones");
        (await fits).Count.ShouldBe(2); // as many as there is room for
    }

    private static async Task<List<int?>> TokensAsync(GenerationEngine engine, GenerationRequest request)
    {
        var tokens = new List<int?>();
        await foreach (var token in engine.Generate(request).ReadAllAsync(TestContext.Current.CancellationToken))
        {
            tokens.Add(token.Id);
        }

        return tokens;
    }

    private static GenerationRequest Request(AdapterReference? adapter, int[] prompt, int task = 0) => new()
    {
        Prompt = prompt,
        Adapter = adapter,
        Task = task,
        Sampling = new SamplingParameters { MaxTokens = 6, Temperature = 0 },
    };

    private List<AdapterReference> Adapters()
    {
        using var scope = NewDisposeScope();
        using var frozen = no_grad();
        using var model = PretrainedModel.Load(Samples.TinyLlama, CPU, ScalarType.Float32);
        AdapterConfig[] configs =
        [
            new PrefixTuningConfig { NumVirtualTokens = 8 },
            new PromptTuningConfig { NumVirtualTokens = 5 },
            new AdaptionPromptConfig { AdapterLen = 4, AdapterLayers = 2 },
            new LoraConfig { R = 4 },
            new PolyConfig { NTasks = 2, R = 4 },
            new MultitaskPromptTuningConfig { NumVirtualTokens = 6, NumTasks = 2 },
        ];
        return [.. configs.Select((config, i) =>
        {
            using var generator = new Generator((ulong)i);
            using var adapter = config.CreateAdapter(model);
            adapter.Initialize(i);
            foreach (var weight in adapter.Trainable)
            {
                weight.Value.Add(randn([.. weight.Shape], generator: generator), 0.3);
            }

            var folder = Path.Combine(_folder, $"{i}");
            AdapterFile.Save(adapter, folder, "tiny-llama");
            return new AdapterReference($"{i}", folder);
        })];
    }
}
