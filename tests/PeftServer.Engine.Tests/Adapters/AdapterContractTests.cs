using System.Text.Json;
using System.Text.Json.Nodes;
using PeftServer.Engine.Adapters;
using PeftServer.Engine.Data;
using PeftServer.Engine.Models;
using PeftServer.Engine.Training;
using PeftServer.Engine.Training.Optimizers;

namespace PeftServer.Engine.Tests.Adapters;

/// <summary>What every method keeps, over the list of methods: one that is added is tested by being there.</summary>
public sealed class AdapterContractTests
{
    /// <summary>Settings that the small model needs, where a method's defaults are for wide ones.</summary>
    private static readonly Dictionary<string, string> Settings = new()
    {
        ["BOFT"] = """{ "boft_block_size": 4 }""",
        ["CARTRIDGE"] = """{ "num_virtual_tokens": 4 }""",
        ["CPT"] = """{ "cpt_token_ids": [5, 6, 7, 8], "cpt_tokens_type_mask": [1, 2, 3, 4], "opt_projection_epsilon": 10 }""",
        ["C3A"] = """{ "block_size": 8 }""",
        ["FOURIERFT"] = """{ "n_frequency": 64 }""",
        ["GRALORA"] = """{ "r": 4 }""",
        ["MISS"] = """{ "r": 8 }""",
        ["OFT"] = """{ "oft_block_size": 4 }""",
        ["RANDLORA"] = """{ "r": 8 }""",
        ["ROAD"] = """{ "group_size": 16 }""",
        ["SHIRA"] = """{ "r": 4 }""",
        ["VBLORA"] = """{ "vector_length": 8, "num_vectors": 16 }""",
        ["WAVEFT"] = """{ "n_frequency": 64 }""",
        ["LN_TUNING"] = """{ "target_modules": ["input_layernorm"] }""",
    };

    public static TheoryData<string> Methods => [.. AdapterConfig.Types.Keys];

    [Theory]
    [MemberData(nameof(Methods))]
    public void Train_FreshAdapter_LowersTheLossAndMovesOnlyItsOwn(string method)
    {
        using var scope = NewDisposeScope();
        using var model = RandomLlama.Create(CPU, ScalarType.Float32);
        using var adapter = Create(method, model);
        adapter.Initialize(3);
        var frozen = model.Weights().Select(weight => (weight, Before: weight.Value.clone())).ToList();
        adapter.SetTraining(true);
        using var optimizer = new AdamW(adapter.Trainable, 0.9, 0.999, 1e-8, 0);
        using var step = new AutogradStep(model, adapter);
        var batch = Batch();

        var losses = new List<double>();
        for (var i = 0; i < 12; i++)
        {
            using var inner = NewDisposeScope();
            optimizer.ZeroGrad();
            losses.Add(step.ForwardBackward(batch, 1.0 / batch.Targets.Length, null).Loss.item<float>());
            optimizer.Step(5e-3);
        }

        losses.ShouldAllBe(loss => double.IsFinite(loss));
        losses[^1].ShouldBeLessThan(losses[0]);
        frozen.ShouldAllBe(entry => entry.weight.Value.equal(entry.Before).all().item<bool>());
    }

    [Theory]
    [MemberData(nameof(Methods))]
    public void SaveAndLoad_TrainedAdapter_GivesTheSameLogits(string method)
    {
        using var scope = NewDisposeScope();
        using var model = RandomLlama.Create(CPU, ScalarType.Float32);
        using var adapter = Create(method, model);
        adapter.Initialize(4);
        adapter.SetTraining(true);
        using var optimizer = new AdamW(adapter.Trainable, 0.9, 0.999, 1e-8, 0);
        using var step = new AutogradStep(model, adapter);
        step.ForwardBackward(Batch(), 0.1, null);
        optimizer.Step(1e-2);
        adapter.SetTraining(false);
        var folder = Directory.CreateTempSubdirectory("peftserver-adapter-").FullName;
        try
        {
            AdapterFile.Save(adapter, folder, "random-llama");
            using var loaded = AdapterFile.Load(folder, model);

            var error = Logits(model, [loaded]).sub(Logits(model, [adapter])).abs().max().item<float>();

            error.ShouldBeLessThan(1e-5f);
            Logits(model, [adapter]).sub(Logits(model, [])).abs().max().item<float>().ShouldBeGreaterThan(1e-4f); // it does something
        }
        finally
        {
            Directory.Delete(folder, recursive: true);
        }
    }

    private static Adapter Create(string method, PretrainedModel model)
    {
        var settings = JsonNode.Parse(Settings.GetValueOrDefault(method, "{}"))!.AsObject();
        settings["peft_type"] = method;
        if (AdapterConfig.Types[method].GetProperty("TargetModules") is not null)
        {
            settings.TryAdd("target_modules", new JsonArray("q_proj", "v_proj"));
        }

        if (method == "IA3")
        {
            settings["feedforward_modules"] = new JsonArray();
        }

        return settings.Deserialize<AdapterConfig>(PeftJson.Options)!.CreateAdapter(model);
    }

    private static Tensor Logits(CausalLanguageModel model, IReadOnlyList<Adapter> adapters)
    {
        using var frozen = no_grad();
        using var batch = ForwardBatch.Packed([[3, 5, 7, 11, 13]], adapters, CPU);
        var own = tensor(batch.PlacesOf([0, 1, 2, 3, 4]));
        return model.Logits(model.Hidden(batch).index_select(0, own), batch);
    }

    private static SftBatch Batch()
    {
        var ids = Enumerable.Range(0, 24).Select(i => (i * 37) % 128).ToArray();
        return SftBatch.Of([new TrainingRow(ids, [.. ids.Select(_ => true)], 1)]);
    }
}
