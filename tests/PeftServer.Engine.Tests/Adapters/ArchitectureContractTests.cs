using System.Text.Json;
using System.Text.Json.Nodes;
using PeftServer.Engine.Adapters;
using PeftServer.Engine.Adapters.Xlora;
using PeftServer.Engine.Models;
using PeftServer.Engine.Native;

namespace PeftServer.Engine.Tests.Adapters;

/// <summary>
/// Every method on a model with weights stored [in, out] (GPT-2), an encoder (BERT) and an encoder-decoder (mT5): it starts, gives gradients to
/// what trains and to nothing else, and comes back from its file; or it says that it is not for that architecture.
/// </summary>
public sealed class ArchitectureContractTests
{
    /// <summary>What a method cannot take, by a word of the message that says so.</summary>
    private static readonly Dictionary<(string Method, string Model), string> Refused = new()
    {
        [("ADAPTION_PROMPT", "bert_cls")] = "not supported on bert",
        [("ADAPTION_PROMPT", "mt5")] = "not supported on mt5",
        [("CPT", "bert_cls")] = "CAUSAL_LM only",
        [("CPT", "mt5")] = "CAUSAL_LM only",
        [("POLY", "gpt2")] = "a Conv1D",
        [("SHADOW", "bert_cls")] = "CAUSAL_LM only",
        [("SHADOW", "gpt2")] = "not supported on this gpt2",
        [("SHADOW", "mt5")] = "CAUSAL_LM only",
        [("XLORA", "bert_cls")] = "CAUSAL_LM only",
        [("XLORA", "mt5")] = "CAUSAL_LM only",
    };

    /// <summary>What PEFT has no default for on a model.</summary>
    private static readonly Dictionary<(string Method, string Model), string> Targets = new()
    {
        [("BEFT", "gpt2")] = "c_attn",
        [("LN_TUNING", "bert_cls")] = "LayerNorm",
    };

    public static IEnumerable<TheoryDataRow<string, string>> Cases =>
        from model in new[] { "gpt2", "bert_cls", "mt5" }
        from method in AdapterConfig.Types.Keys
        select new TheoryDataRow<string, string>(method, model);

    [Theory]
    [MemberData(nameof(Cases))]
    public void Adapter_OnAnotherArchitecture_TrainsAndReloadsOrSaysWhyNot(string method, string name)
    {
        using var scope = NewDisposeScope();
        using var model = PretrainedModel.Load(Path.Combine(Samples.RepositoryRoot, "tests", "Goldens", "models", name), CPU, ScalarType.Float32);
        var config = Config(method, name, model);
        if (Refused.TryGetValue((method, name), out var word))
        {
            var refused = Record.Exception(() => Use(config, model));
            (refused is AdapterException).ShouldBeTrue($"{refused}");
            refused!.Message.ShouldContain(word);
            return;
        }

        Use(config, model);
    }

    private static void Use(AdapterConfig config, PretrainedModel model)
    {
        if (config.Faults() is [var fault, ..])
        {
            throw new AdapterException(string.Join(", ", fault.MemberNames), fault.ErrorMessage!);
        }

        using var adapter = config.CreateAdapter(model);
        adapter.Initialize(1);
        Stir(adapter);

        adapter.SetTraining(true);
        var scores = Scores(model, adapter);
        F.cross_entropy(scores, zeros(scores.size(0), dtype: ScalarType.Int64)).backward();
        adapter.Trainable.Count(weight => weight.Value.grad is not null).ShouldBeGreaterThan(0);
        model.Weights().ShouldAllBe(weight => !weight.Value.requires_grad);
        adapter.SetTraining(false);

        using var frozen = no_grad();
        var expected = Scores(model, adapter);
        var folder = Directory.CreateTempSubdirectory("peftserver-adapter-").FullName;
        try
        {
            AdapterFile.Save(adapter, folder, "base");
            using var loaded = AdapterFile.Load(folder, model);
            Scores(model, loaded).Minus(expected).abs().max().item<float>().ShouldBeLessThan(1e-5f);
        }
        finally
        {
            Directory.Delete(folder, recursive: true);
        }
    }

    private static void Stir(Adapter adapter)
    {
        using var frozen = no_grad();
        using var generator = new Generator(2);
        foreach (var weight in adapter.Trainable)
        {
            weight.Value.Add(randn([.. weight.Shape], generator: generator), 0.05);
        }
    }

    private static AdapterConfig Config(string method, string name, PretrainedModel model)
    {
        var settings = AdapterContractTests.SettingsOf(method);
        settings.Remove("target_modules");
        if (Targets.TryGetValue((method, name), out var targets))
        {
            settings["target_modules"] = new JsonArray(targets);
        }

        settings["task_type"] = model switch
        {
            ClassificationModel => "SEQ_CLS",
            Seq2SeqLanguageModel => "SEQ_2_SEQ_LM",
            _ => "CAUSAL_LM",
        };
        var config = settings.Deserialize<AdapterConfig>(PeftJson.Options)!;
        return config is XloraConfig mixture && model is CausalLanguageModel ? mixture with { ExpertFolder = AdapterContractTests.ExpertsOf(model, name, "c_attn") } : config;
    }

    /// <summary>Scores [n, classes] of what the model says.</summary>
    private static Tensor Scores(PretrainedModel model, Adapter adapter)
    {
        int[][] rows = [[3, 5, 7, 11], [13, 17]];
        if (model is Seq2SeqLanguageModel both)
        {
            using var source = both.Read(rows, [adapter]);
            using var written = ForwardBatch.Packed([[both.StartToken, 4, 6], [both.StartToken, 8]], [adapter], CPU, source: source);
            return both.Logits(both.Hidden(written), written);
        }

        using var batch = ForwardBatch.Packed(rows, [adapter], CPU);
        return model is CausalLanguageModel causal ? causal.Logits(causal.Hidden(batch), batch) : ((ClassificationModel)model).Predict(batch);
    }
}
