using System.Text.Json;
using System.Text.Json.Nodes;
using PeftServer.Engine.Adapters;
using PeftServer.Engine.Adapters.AdapterHub;
using PeftServer.Engine.Adapters.Lora;
using PeftServer.Engine.Adapters.Xlora;
using PeftServer.Engine.Data;
using PeftServer.Engine.Models;
using PeftServer.Engine.Native;
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
        ["SHADOW"] = """{ "target_modules": null }""",
        ["SHIRA"] = """{ "r": 4 }""",
        ["VBLORA"] = """{ "vector_length": 8, "num_vectors": 16 }""",
        ["XLORA"] = """{ "adapters": { "0": "a", "1": "b" }, "xlora_depth": 2, "xlora_size": 8 }""",
        ["WAVEFT"] = """{ "n_frequency": 64 }""",
        ["LN_TUNING"] = """{ "target_modules": ["input_layernorm"] }""",
        ["TRAINABLE_TOKENS"] = """{ "target_modules": ["embed_tokens"], "token_indices": [3, 37] }""",
    };

    /// <summary>Short names of the adapters library whose defaults are for wider models.</summary>
    private static readonly Dictionary<string, string> Narrow = new()
    {
        ["compacter"] = "compacter[reduction_factor=4]",
        ["compacter++"] = "compacter++[reduction_factor=4]",
        ["prefix_tuning"] = "prefix_tuning[prefix_length=4,bottleneck_size=8]",
        ["mam"] = "prefix_tuning[prefix_length=4,bottleneck_size=8]|par_bn",
        ["vera"] = "vera[attn_matrices=['q']]",
        ["dvora"] = "dvora[attn_matrices=['q']]",
        ["unipelt"] = "prefix_tuning[prefix_length=4,bottleneck_size=8,use_gating=True]|seq_bn[use_gating=True]|lora[use_gating=True]",
    };

    /// <summary>Options of a method, most of LoRA, that make another one of it. They keep what every method keeps.</summary>
    private static readonly Dictionary<string, string> LoraOptions = new()
    {
        ["ADAMSS asa"] = """{ "r": 8, "num_subspaces": 3, "use_asa": true, "asa_target_subspaces": 4, "init_warmup": 0, "final_warmup": 4, "mask_interval": 2 }""",
        ["C3A peft"] = """{ "block_size": 8, "gradient": "peft" }""",
        ["LORA alora"] = """{ "alora_invocation_tokens": [3] }""",
        ["LORA bdlora"] = """{ "use_bdlora": { "target_modules_bd_a": ["q_proj"], "target_modules_bd_b": ["v_proj"], "nblocks": 2 } }""",
        ["LORA dora"] = """{ "use_dora": true }""",
        ["LORA dora embedding"] = """{ "use_dora": true, "target_modules": ["embed_tokens", "q_proj"] }""",
        ["LORA gaussian"] = """{ "init_lora_weights": "gaussian" }""",
        ["LORA kasa"] = """{ "kasa_config": {} }""",
        ["LORA layers"] = """{ "layer_replication": [[0, 2], [1, 2]] }""",
        ["LORA loftq"] = """{ "init_lora_weights": "loftq", "loftq_config": { "loftq_bits": 4, "loftq_iter": 2 } }""",
        ["LORA loftq8"] = """{ "init_lora_weights": "loftq", "loftq_config": { "loftq_bits": 8, "loftq_iter": 1 } }""",
        ["LORA lora_bias"] = """{ "lora_bias": true }""",
        ["LORA mica"] = """{ "init_lora_weights": "mica" }""",
        ["LORA monteclora"] = """{ "monteclora_config": { "num_samples": 3 } }""",
        ["LORA olora"] = """{ "init_lora_weights": "olora" }""",
        ["LORA orthogonal"] = """{ "init_lora_weights": "orthogonal" }""",
        ["LORA pissa"] = """{ "init_lora_weights": "pissa" }""",
        ["LORA pissa dora"] = """{ "init_lora_weights": "pissa", "use_dora": true }""",
        ["LORA pissa_niter"] = """{ "init_lora_weights": "pissa_niter_4" }""",
        ["LORA qalora"] = """{ "use_qalora": true, "qalora_group_size": 8 }""",
        ["LORA rslora"] = """{ "use_rslora": true }""",
        ["LORA tokens"] = """{ "trainable_token_indices": [3, 37] }""",
        ["LORA velora"] = """{ "velora_config": { "num_groups": 8 } }""",
    };

    /// <summary>Every method; the adapters library's by each of its names, LoRA with each of its options.</summary>
    public static TheoryData<string> Methods =>
        [.. AdapterConfig.Types.Keys.Where(method => method != "ADAPTERS"), .. HubNames.All.Select(name => $"ADAPTERS {name}"), .. LoraOptions.Keys];

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
            var saved = adapter.Portable();
            AdapterFile.Save(saved, folder, "random-llama");
            using var loaded = AdapterFile.Load(folder, model);

            var error = Logits(model, [loaded]).sub(Logits(model, [adapter])).abs().max().item<float>();

            error.ShouldBeLessThan(1e-5f);
            if (!method.StartsWith("ADAPTERS ", StringComparison.Ordinal)) // its file has another name
            {
                var length = new FileInfo(Path.Combine(folder, AdapterFile.WeightsName)).Length;
                AdapterFile.SizeOf(saved).ShouldBeInRange(length - 8, length + 8); // whole numbers stand elsewhere in a header
            }

            Logits(model, [adapter]).sub(Logits(model, [])).abs().max().item<float>().ShouldBeGreaterThan(1e-4f); // it does something
        }
        finally
        {
            Directory.Delete(folder, recursive: true);
        }
    }

    /// <summary>Methods whose fresh adapter changes nothing yet. The others start with values that are drawn.</summary>
    public static TheoryData<string> IdentityAtStart => [.. AdapterConfig.Types.Keys.Concat(LoraOptions.Keys).Except(
        ["ADAPTERS", "LORA kasa", "LORA layers", "LORA loftq", "LORA loftq8", "C3A", "C3A peft", "CARTRIDGE", "CPT", "FOURIERFT", "MULTITASK_PROMPT_TUNING", "P_TUNING", "PREFIX_TUNING", "PROMPT_TUNING", "UNILORA", "VBLORA", "XLORA"]),
        .. new[] { "par_bn", "scaled_par_bn", "lora", "ia3", "dora", "vera", "dvora" }.Select(name => $"ADAPTERS {name}")];

    [Theory]
    [MemberData(nameof(IdentityAtStart))]
    public void Initialize_FreshAdapter_ChangesNothing(string method)
    {
        using var scope = NewDisposeScope();
        using var model = RandomLlama.Create(CPU, ScalarType.Float32);
        using var adapter = Create(method, model);
        adapter.Initialize(5);

        var frozen = Logits(model, []);
        Distance(Logits(model, [adapter]), frozen).ShouldBeLessThan(1e-5f * Math.Max(1, frozen.abs().max().item<float>()));
    }

    [Theory]
    [MemberData(nameof(Methods))]
    public void Forward_TwoAdaptersInOneBatch_EachSequenceHasItsOwn(string method)
    {
        using var scope = NewDisposeScope();
        using var frozen = no_grad();
        using var model = RandomLlama.Create(CPU, ScalarType.Float32);
        using var first = Stirred(method, model, 6);
        using var second = Stirred(method, model, 7);
        int[][] rows = [[3, 5, 7, 11], [13, 17, 19], [23, 29, 31, 37, 41]];
        IReadOnlyList<Adapter>[] used = [[first], [], [second]];

        var together = Continued(model, rows, used);

        for (var i = 0; i < rows.Length; i++)
        {
            Distance(together[i], Continued(model, [rows[i]], [used[i]])[0]).ShouldBeLessThan(1e-4f, $"row {i}");
        }
    }

    /// <summary>Lily mixes by the tokens that go through together, so pieces of a sequence have mixes of their own.</summary>
    public static TheoryData<string> InPieces => [.. AdapterConfig.Types.Keys.Concat(LoraOptions.Keys).Except(["LILY"])];

    [Theory]
    [MemberData(nameof(InPieces))]
    public void Forward_CachedInPieces_GivesWhatOnePassGives(string method)
    {
        using var scope = NewDisposeScope();
        using var frozen = no_grad();
        using var model = RandomLlama.Create(CPU, ScalarType.Float32);
        using var adapter = Stirred(method, model, 8);
        Assert.SkipWhen(adapter.ReadsWholeSequences, "What it does to a token depends on those after it.");
        using var cache = new KeyValueCache(model.LayerCount);
        var pieces = new[] { new[] { 3, 5 }, [7], [11, 13] }.Select(piece =>
        {
            using var batch = ForwardBatch.Cached([new CachedSequence(piece, cache, [adapter])], CPU);
            var logits = model.Logits(model.Hidden(batch), batch);
            cache.Advance(piece.Length);
            return logits.narrow(0, batch.PromptRows[0], piece.Length);
        }).ToArray();

        Distance(cat(pieces, 0), Logits(model, [adapter])).ShouldBeLessThan(1e-4f);
    }

    /// <summary>
    /// Methods that work in directions found in the weight, whose signs and order rounding may change: what was stirred the same way does other things.
    /// </summary>
    private static readonly string[] DirectionsOfTheWeight = ["ADAMSS", "ADAMSS asa", "FROD", "LORA loftq", "LORA loftq8", "LORA pissa", "LORA pissa dora", "LORA pissa_niter", "OSF", "PSOFT", "TINYLORA"];

    [Theory]
    [MemberData(nameof(Methods))]
    public void Train_OnABfloat16Base_StaysNearFloat32(string method)
    {
        using var scope = NewDisposeScope();
        using var model = RandomLlama.Create(CPU, ScalarType.Float32);
        using var half = RandomLlama.Create(CPU, ScalarType.BFloat16);
        using var adapter = Stirred(method, model, 9);
        using var other = Stirred(method, half, 9);
        var logits = Logits(model, [adapter]);

        if (!DirectionsOfTheWeight.Contains(method))
        {
            Distance(Logits(half, [other]).to(ScalarType.Float32), logits).ShouldBeLessThan(0.1f * logits.abs().max().item<float>());
        }

        other.SetTraining(true);
        using var optimizer = new AdamW(other.Trainable, 0.9, 0.999, 1e-8, 0);
        using var step = new AutogradStep(half, other);
        double.IsFinite(step.ForwardBackward(Batch(), 0.1, null).Loss.to(ScalarType.Float32).item<float>()).ShouldBeTrue();
        other.Trainable.ShouldAllBe(weight => weight.Value.dtype == ScalarType.Float32);
    }

    [Theory]
    [MemberData(nameof(Methods))]
    public void Train_ManySteps_KeepsNoTensors(string method)
    {
        using var scope = NewDisposeScope();
        using var model = RandomLlama.Create(CPU, ScalarType.Float32);
        using var adapter = Create(method, model);
        adapter.Initialize(10);
        adapter.SetTraining(true);
        using var optimizer = new AdamW(adapter.Trainable, 0.9, 0.999, 1e-8, 0);
        using var step = new AutogradStep(model, adapter);
        var batch = Batch();
        var live = new List<long>();

        for (var i = 0; i < 50; i++)
        {
            using (NewDisposeScope())
            {
                optimizer.ZeroGrad();
                step.ForwardBackward(batch, 0.1, null);
                optimizer.Step(1e-3);
            }

            live.Add(DisposeScopeManager.Statistics.ThreadTotalLiveCount);
        }

        live[^1].ShouldBe(live[2]);
    }

    [Theory]
    [MemberData(nameof(Methods))]
    public void MergeAndUnload_AnyMethod_ComputesTheSameOrSaysWhyNot(string method)
    {
        using var scope = NewDisposeScope();
        using var frozen = no_grad();
        using var model = RandomLlama.Create(CPU, ScalarType.Float32);
        using var adapter = Stirred(method, model, 11);
        var expected = Logits(model, [adapter]);

        if (Record.Exception(adapter.MergeAndUnload) is { } refused)
        {
            refused.ShouldBeOfType<NotSupportedException>().Message.ShouldContain("cannot be merged");
            Distance(Logits(model, [adapter]), expected).ShouldBe(0); // and nothing was changed
            return;
        }

        Distance(Logits(model, []), expected).ShouldBeLessThan(1e-3f * expected.abs().max().item<float>());
    }

    /// <summary>An adapter whose every trained weight was moved at random, so that it does something.</summary>
    private static Adapter Stirred(string method, PretrainedModel model, int seed)
    {
        using var frozen = no_grad();
        using var generator = new Generator((ulong)seed);
        var adapter = Create(method, model);
        adapter.Initialize(seed);
        foreach (var weight in adapter.Trainable)
        {
            weight.Value.Add(randn([.. weight.Shape], generator: generator), 0.05);
        }

        adapter.SetTraining(true); // what is saved follows
        adapter.SetTraining(false);
        return adapter;
    }

    /// <summary>Logits of each row's last token, all rows through their caches at once.</summary>
    private static Tensor[] Continued(CausalLanguageModel model, int[][] rows, IReadOnlyList<Adapter>[] adapters)
    {
        var caches = rows.Select(_ => new KeyValueCache(model.LayerCount)).ToList();
        using var batch = ForwardBatch.Cached([.. rows.Select((row, i) => new CachedSequence(row, caches[i], adapters[i]))], CPU);
        var hidden = model.Hidden(batch);
        using var heads = ForwardBatch.Heads([.. adapters.Select((used, i) => new AdapterRun(used, i, 1))], CPU);
        var lasts = tensor(batch.Starts.Skip(1).Select(end => end - 1L).ToArray());
        var logits = model.Logits(hidden.index_select(0, lasts), heads);
        caches.ForEach(cache => cache.Dispose());
        return [.. Enumerable.Range(0, rows.Length).Select(i => logits.select(0, i))];
    }

    private static float Distance(Tensor a, Tensor b) => a.Minus(b).abs().max().item<float>();

    /// <summary>Two LoRA adapters in folders, as X-LoRA takes them.</summary>
    private static readonly Lazy<string> Experts = new(() =>
    {
        using var scope = NewDisposeScope();
        using var model = RandomLlama.Create(CPU, ScalarType.Float32);
        return ExpertsOf(model, "random-llama", "q_proj", "v_proj");
    });

    /// <summary>Two LoRA adapters of <paramref name="model"/> in folders.</summary>
    internal static string ExpertsOf(PretrainedModel model, string name, params string[] targets)
    {
        var folder = Path.Combine(AppContext.BaseDirectory, "xlora-experts", name);
        for (var i = 0; i < 2; i++)
        {
            using var expert = new LoraConfig { R = 2, InitLoraWeights = LoraInit.Random, TargetModules = ModuleSelector.Of(targets) }.CreateAdapter(model);
            expert.Initialize(i);
            AdapterFile.Save(expert, Path.Combine(folder, $"{i}"), name);
        }

        return folder;
    }

    /// <summary>Settings that suit small models.</summary>
    internal static JsonObject SettingsOf(string method)
    {
        var settings = JsonNode.Parse(LoraOptions.GetValueOrDefault(method) ?? Settings.GetValueOrDefault(method, "{}"))!.AsObject();
        settings["peft_type"] = method.Split(' ')[0];
        if (method.Split(' ') is ["ADAPTERS", var name])
        {
            settings["config"] = Narrow.GetValueOrDefault(name, name);
        }

        return settings;
    }

    internal static Adapter Create(string method, PretrainedModel model)
    {
        var settings = SettingsOf(method);
        method = method.Split(' ')[0];
        if (AdapterConfig.Types[method].GetProperty("TargetModules")?.PropertyType == typeof(ModuleSelector))
        {
            settings.TryAdd("target_modules", new JsonArray("q_proj", "v_proj"));
        }

        if (method == "IA3")
        {
            settings["feedforward_modules"] = new JsonArray();
        }

        var config = settings.Deserialize<AdapterConfig>(PeftJson.Options)!;
        return (config is XloraConfig mixture ? mixture with { ExpertFolder = Experts.Value } : config).CreateAdapter(model);
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
