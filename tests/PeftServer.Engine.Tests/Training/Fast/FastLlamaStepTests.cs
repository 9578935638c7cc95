using PeftServer.Engine.Adapters;
using PeftServer.Engine.Adapters.Lora;
using PeftServer.Engine.Data;
using PeftServer.Engine.Kernels;
using PeftServer.Engine.Models;
using PeftServer.Engine.Native;
using PeftServer.Engine.Quantization;
using PeftServer.Engine.Training;
using PeftServer.Engine.Training.Fast;
using PeftServer.Engine.Training.Optimizers;

namespace PeftServer.Engine.Tests.Training.Fast;

/// <summary>The hand-written step against autograd, over the kernels' plain-tensor twins and those for CPUs.</summary>
public sealed class FastLlamaStepTests
{
    private static readonly ModuleSelector[] Targets =
        [ModuleSelector.AllLinear, ModuleSelector.Of("q_proj", "v_proj"), ModuleSelector.Of("down_proj"), ModuleSelector.Of("k_proj", "o_proj", "up_proj")];

    public static TheoryData<int, bool, bool> Cases =>
    [
        .. from target in Enumerable.Range(0, Targets.Length)
           from keep in new[] { true, false }
           from cpu in new[] { true, false }
           select new TheoryDataRow<int, bool, bool>(target, keep, cpu),
    ];

    [Theory]
    [MemberData(nameof(Cases))]
    public void ForwardBackward_AnyTargets_GivesTheGradientsOfAutograd(int target, bool keep, bool cpuKernels)
    {
        using var scope = NewDisposeScope();
        using var model = RandomLlama.Create(CPU, ScalarType.Float32);
        using var adapter = CreateAdapter(model, Targets[target]);
        using var optimizer = new AdamW(adapter.Trainable, 0.9, 0.999, 1e-8, 0);
        var batch = SftBatch.Of([Row(7, 1), Row(12, 2), Row(1, 3), Row(5, 4)]);

        var (loss, gradients) = Run(new AutogradStep(model, adapter), batch, adapter, optimizer);
        using var fast = new FastLlamaStep(model, adapter, cpuKernels ? new CpuBlockKernels() : new TensorBlockKernels(), keep ? ActivationPlan.Keep : ActivationPlan.Lean);
        var (fastLoss, fastGradients) = Run(fast, batch, adapter, optimizer);

        fastLoss.ShouldBe(loss, 1e-4 * Math.Abs(loss));
        foreach (var (name, gradient) in gradients)
        {
            Error(fastGradients[name], gradient).ShouldBeLessThan(1e-3f, name);
        }
    }

    private static readonly Lazy<CudaBlockKernels> OnGpu = new(() => new CudaBlockKernels(0, overlaps: true)); // compiled once

    [Theory]
    [InlineData(true)]
    [InlineData(false)]
    public void ForwardBackward_OnTheGpuInBfloat16_IsAsNearToFloat32AsAutogradInBfloat16(bool keep)
    {
        Assert.SkipUnless(TorchLoader.TorchCuda != 0 && cuda.is_available(), "This host has no GPU that libtorch can use.");
        using var scope = NewDisposeScope();
        var device = Devices.Parse("cuda:0");
        using var wide = RandomLlama.Create(device, ScalarType.Float32, hidden: 256, heads: 4, groups: 2, headDim: 64, intermediate: 512);
        using var narrow = RandomLlama.Create(device, ScalarType.BFloat16, hidden: 256, heads: 4, groups: 2, headDim: 64, intermediate: 512);
        using var adapter = CreateAdapter(wide, ModuleSelector.AllLinear);
        using var fastAdapter = CreateAdapter(narrow, ModuleSelector.AllLinear);
        using var optimizer = new AdamW(adapter.Trainable, 0.9, 0.999, 1e-8, 0);
        using var fastOptimizer = new AdamW(fastAdapter.Trainable, 0.9, 0.999, 1e-8, 0);
        var batch = SftBatch.Of([Row(70, 1), Row(120, 2), Row(1, 3), Row(50, 4)]);

        var (loss, gradients) = Run(new AutogradStep(wide, adapter), batch, adapter, optimizer);
        var (_, plainGradients) = Run(new AutogradStep(narrow, fastAdapter), batch, fastAdapter, fastOptimizer);
        using var fast = new FastLlamaStep(narrow, fastAdapter, OnGpu.Value, keep ? ActivationPlan.Keep : ActivationPlan.Lean);
        var (fastLoss, fastGradients) = Run(fast, batch, fastAdapter, fastOptimizer);

        fastLoss.ShouldBe(loss, 3e-2 * Math.Abs(loss));
        foreach (var (name, gradient) in gradients)
        {
            var norm = gradient.norm().item<float>();
            var rounding = plainGradients[name].Minus(gradient).norm().item<float>() / norm; // what bfloat16 costs any code
            (fastGradients[name].Minus(gradient).norm().item<float>() / norm).ShouldBeLessThan((1.5f * rounding) + 1e-2f, name);
        }
    }

    /// <summary>Llama's relatives that the step knows, each with what it does otherwise.</summary>
    public static TheoryData<string, string, bool> Relatives
    {
        get
        {
            var rows = new TheoryData<string, string, bool>();
            foreach (var (type, fields) in RelativeFields)
            {
                rows.Add(type, fields, true);
                rows.Add(type, fields, false);
            }

            return rows;
        }
    }

    // Scores of about the size of their cap: far above it only signs are left of them, and what rounding costs is any amount.
    private const string Gemma2 = "\"query_pre_attn_scalar\": 2000, \"attn_logit_softcapping\": 2.0, \"final_logit_softcapping\": 3.0, \"sliding_window\": 4,";
    private const string Gemma3 = "\"query_pre_attn_scalar\": 24, \"sliding_window\": 4, \"sliding_window_pattern\": 2, \"rope_local_base_freq\": 100.0,";
    private const string Mixtral = "\"num_local_experts\": 4, \"num_experts_per_tok\": 2,";
    private const string QwenMoe = "\"num_experts\": 6, \"num_experts_per_tok\": 3, \"moe_intermediate_size\": 32,";

    // Every token goes to all: where scores are close, rounding alone decides which expert is left out, and that is no small difference.
    private const string AllOfFour = "\"num_local_experts\": 4, \"num_experts_per_tok\": 4,";
    private const string AllOfSix = "\"num_experts\": 6, \"num_experts_per_tok\": 6, \"moe_intermediate_size\": 32,";
    private const string Granite =
        "\"attention_multiplier\": 0.2, \"embedding_multiplier\": 3.0, \"residual_multiplier\": 0.4, \"logits_scaling\": 2.0,";

    private const string StableLm = "\"partial_rotary_factor\": 0.5, \"use_qkv_bias\": true,";
    private const string Phi = "\"partial_rotary_factor\": 0.5,";
    private const string NeoX = "\"rotary_pct\": 0.5,";

    private static readonly (string Type, string Fields)[] RelativeFields =
    [
        ("mistral", "\"sliding_window\": 4,"), ("qwen2", ""), ("qwen2", "\"use_sliding_window\": true, \"sliding_window\": 3, \"max_window_layers\": 1,"),
        ("qwen3", ""), ("phi3", "\"pad_token_id\": 0,"), ("smollm3", "\"no_rope_layers\": [1, 0], \"pad_token_id\": 0,"),
        ("gemma", ""), ("gemma2", Gemma2), ("gemma3_text", Gemma3), ("granite", Granite), ("olmo2", ""), ("cohere", "\"logit_scale\": 0.25,"),
        ("mixtral", Mixtral), ("qwen3_moe", QwenMoe), ("qwen3_moe", QwenMoe + "\"norm_topk_prob\": true, \"mlp_only_layers\": [1],"),
        ("granite", Granite + "\"attention_bias\": true, \"mlp_bias\": true,"), ("starcoder2", "\"sliding_window\": 4,"), ("starcoder2", "\"use_bias\": false,"),
        ("stablelm", StableLm), ("stablelm", "\"use_parallel_residual\": true,"), ("phi", Phi), ("phi", "\"partial_rotary_factor\": 1.0,"),
        ("gpt_neox", NeoX), ("gpt_neox", "\"rotary_pct\": 1.0,"), ("gpt_neox", "\"use_parallel_residual\": false, \"attention_bias\": false,"),
        ("gptj", "\"rotary_dim\": 8,"), ("gpt2", ""), ("gpt2", "\"scale_attn_by_inverse_layer_idx\": true, \"activation_function\": \"relu\","),
        ("opt", ""), ("falcon", ""), ("falcon", "\"multi_query\": false, \"bias\": true, \"parallel_attn\": false,"),
        ("falcon", "\"new_decoder_architecture\": true, \"num_kv_heads\": 4,"), ("gemma2", Gemma2 + "\"hidden_activation\": \"gelu\","),
    ];

    [Theory]
    [MemberData(nameof(Relatives))]
    public void ForwardBackward_ARelativeOfLlama_GivesTheGradientsOfAutograd(string type, string fields, bool cpuKernels)
    {
        using var scope = NewDisposeScope();
        using var model = RandomLlama.Relative(type, fields, CPU, ScalarType.Float32, vocabulary: 131);
        using var adapter = CreateAdapter(model, ModuleSelector.AllLinear);
        using var optimizer = new AdamW(adapter.Trainable, 0.9, 0.999, 1e-8, 0);
        var batch = SftBatch.Of([Row(7, 1), Row(12, 2), Row(1, 3), Row(5, 4)]);

        var (loss, gradients) = Run(new AutogradStep(model, adapter), batch, adapter, optimizer);
        foreach (var plan in new[] { ActivationPlan.Keep, ActivationPlan.Lean })
        {
            using var fast = new FastLlamaStep(model, adapter, cpuKernels ? new CpuBlockKernels() : new TensorBlockKernels(), plan);
            var (fastLoss, fastGradients) = Run(fast, batch, adapter, optimizer);
            fastLoss.ShouldBe(loss, 1e-4 * Math.Abs(loss));
            foreach (var (name, gradient) in gradients)
            {
                Error(fastGradients[name], gradient).ShouldBeLessThan(1e-3f, name);
            }
        }
    }

    /// <summary>On a CPU over the twins, on a GPU over its kernels.</summary>
    public static TheoryData<string, string, string> InBfloat16 =>
    [
        .. from device in new[] { "cpu", "cuda:0" }
           from family in new[]
           {
               ("llama", ""), ("mistral", "\"sliding_window\": 20,"), ("qwen2", ""), ("qwen3", ""), ("phi3", "\"pad_token_id\": 0,"),
               ("smollm3", "\"no_rope_layers\": [1, 0], \"pad_token_id\": 0,"), ("gemma", ""), ("gemma2", Gemma2), ("gemma3_text", Gemma3), ("granite", Granite), ("olmo2", ""),
               ("cohere", "\"logit_scale\": 0.25,"), ("mixtral", AllOfFour), ("qwen3_moe", AllOfSix), ("starcoder2", "\"sliding_window\": 20,"), ("stablelm", StableLm),
               ("stablelm", "\"use_parallel_residual\": true, \"partial_rotary_factor\": 0.25,"), ("phi", Phi), ("phi", "\"partial_rotary_factor\": 0.3125,"), ("gpt_neox", NeoX),
               ("gpt_neox", "\"rotary_pct\": 0.3125,"), ("gptj", "\"rotary_dim\": 32,"), ("gptj", "\"rotary_dim\": 20,"), ("gpt2", ""), ("opt", ""), ("falcon", ""),
           }
           select new TheoryDataRow<string, string, string>(device, family.Item1, family.Item2),
    ];

    [Theory]
    [MemberData(nameof(InBfloat16))]
    public void ForwardBackward_ARelativeInBfloat16_IsAsNearToFloat32AsAutogradInBfloat16(string target, string type, string fields)
    {
        Assert.SkipUnless(target == "cpu" || (TorchLoader.TorchCuda != 0 && cuda.is_available()), "This host has no GPU that libtorch can use.");
        using var scope = NewDisposeScope();
        var device = Devices.Parse(target);
        ActivationPlan[] plans = target == "cpu" ? [ActivationPlan.Keep, ActivationPlan.Lean] : [ActivationPlan.Keep, ActivationPlan.Lean, ActivationPlan.Offload];
        using var wide = RandomLlama.Relative(type, fields, device, ScalarType.Float32, hidden: 256, heads: 4, groups: 2, headDim: 64, intermediate: 512, vocabulary: 131);
        using var narrow = RandomLlama.Relative(type, fields, device, ScalarType.BFloat16, hidden: 256, heads: 4, groups: 2, headDim: 64, intermediate: 512, vocabulary: 131);
        using var adapter = CreateAdapter(wide, ModuleSelector.AllLinear);
        using var fastAdapter = CreateAdapter(narrow, ModuleSelector.AllLinear);
        using var optimizer = new AdamW(adapter.Trainable, 0.9, 0.999, 1e-8, 0);
        using var fastOptimizer = new AdamW(fastAdapter.Trainable, 0.9, 0.999, 1e-8, 0);
        foreach (var batch in new[] { SftBatch.Of([Row(70, 1), Row(120, 2), Row(1, 3), Row(50, 4)]), SftBatch.Of([Row(64, 5), Row(64, 6)]) })
        {
            var (loss, gradients) = Run(new AutogradStep(wide, adapter), batch, adapter, optimizer);
            var (_, plainGradients) = Run(new AutogradStep(narrow, fastAdapter), batch, fastAdapter, fastOptimizer);
            foreach (var plan in plans)
            {
                using var fast = new FastLlamaStep(narrow, fastAdapter, target == "cpu" ? new TensorBlockKernels() : OnGpu.Value, plan);
                var (fastLoss, fastGradients) = Run(fast, batch, fastAdapter, fastOptimizer);
                fastLoss.ShouldBe(loss, 3e-2 * Math.Abs(loss));
                Distance(fastGradients, gradients).ShouldBeLessThan((1.5 * Distance(plainGradients, gradients)) + 0.01, plan.ToString());
            }
        }
    }

    public static TheoryData<string, int> Passes => new() { { "Keep", 2048 }, { "Recompute", ActivationPlan.LeanTokens }, { "Offload", 4096 } };

    [Theory]
    [MemberData(nameof(Passes))]
    public void ForwardBackward_MoreTokensThanAPass_GivesTheGradientsOfAutograd(string mode, int tokens)
    {
        var plan = new ActivationPlan(Enum.Parse<ActivationMode>(mode), tokens);
        using var scope = NewDisposeScope();
        using var model = RandomLlama.Create(CPU, ScalarType.Float32);
        using var adapter = CreateAdapter(model, ModuleSelector.AllLinear);
        using var optimizer = new AdamW(adapter.Trainable, 0.9, 0.999, 1e-8, 0);
        var batch = SftBatch.Of([Row(3000, 1), Row(1500, 2), Row(2, 3), Row(40, 4)]);

        var (loss, gradients) = Run(new AutogradStep(model, adapter), batch, adapter, optimizer);
        using var fast = new FastLlamaStep(model, adapter, new CpuBlockKernels(), plan);
        var (fastLoss, fastGradients) = Run(fast, batch, adapter, optimizer);

        fastLoss.ShouldBe(loss, 1e-4 * Math.Abs(loss));
        foreach (var (name, gradient) in gradients)
        {
            Error(fastGradients[name], gradient).ShouldBeLessThan(1e-3f, name);
        }
    }

    [Theory]
    [InlineData(BaseQuantization.Nf4, true, 1e-4, 1e-3)]
    [InlineData(BaseQuantization.Nf4, false, 1e-4, 1e-3)]
    [InlineData(BaseQuantization.Fp8, true, 3e-2, 0.4)] // activations and gradients have three bits too, and there are few tokens to even it out
    [InlineData(BaseQuantization.Fp8, false, 3e-2, 0.4)]
    public void ForwardBackward_OverAPackedBase_GivesTheGradientsOfAutogradOverTheDecodedOne(BaseQuantization kind, bool keep, double lossError, double gradientError)
    {
        using var scope = NewDisposeScope();
        using var model = RandomLlama.Create(CPU, ScalarType.Float32, layers: 6, quantization: kind);
        using var adapter = CreateAdapter(model, ModuleSelector.AllLinear);
        using var optimizer = new AdamW(adapter.Trainable, 0.9, 0.999, 1e-8, 0);
        var batch = SftBatch.Of([Row(7, 1), Row(12, 2), Row(1, 3), Row(5, 4)]);

        var (loss, gradients) = Run(new AutogradStep(model, adapter), batch, adapter, optimizer);
        using var fast = new FastLlamaStep(model, adapter, new TensorBlockKernels(), keep ? ActivationPlan.Keep : ActivationPlan.Lean);
        var (fastLoss, fastGradients) = Run(fast, batch, adapter, optimizer);

        fastLoss.ShouldBe(loss, lossError * Math.Abs(loss));
        Distance(fastGradients, gradients).ShouldBeLessThan(gradientError);
    }

    /// <summary>
    /// The measure is autograd in float32 over the decoded weights; the allowance what bfloat16 costs any code (and for fp8, whose
    /// activations and gradients have three bits, a share of the whole that few tokens do not even out).
    /// </summary>
    [Theory]
    [InlineData(BaseQuantization.Nf4, 0.01)]
    [InlineData(BaseQuantization.Fp8, 0.6)]
    public void ForwardBackward_OverAPackedBaseOnTheGpu_IsAsNearToFloat32AsAutogradInBfloat16(BaseQuantization kind, double allowance)
    {
        Assert.SkipUnless(TorchLoader.TorchCuda != 0 && cuda.is_available(), "This host has no GPU that libtorch can use.");
        using var scope = NewDisposeScope();
        var device = Devices.Parse("cuda:0");
        using var narrow = RandomLlama.Create(device, ScalarType.BFloat16, hidden: 256, heads: 4, groups: 2, headDim: 64, intermediate: 512, layers: 6, quantization: kind);
        using var wide = RandomLlama.Create(device, ScalarType.Float32, hidden: 256, heads: 4, groups: 2, headDim: 64, intermediate: 512, layers: 6);
        foreach (var (target, source) in wide.Weights().Zip(narrow.Weights()))
        {
            target.Set(source.Value.to(ScalarType.Float32));
        }

        using var adapter = CreateAdapter(wide, ModuleSelector.AllLinear);
        using var fastAdapter = CreateAdapter(narrow, ModuleSelector.AllLinear);
        using var optimizer = new AdamW(adapter.Trainable, 0.9, 0.999, 1e-8, 0);
        using var fastOptimizer = new AdamW(fastAdapter.Trainable, 0.9, 0.999, 1e-8, 0);
        var batch = SftBatch.Of([Row(70, 1), Row(120, 2), Row(1, 3), Row(50, 4)]);

        var (loss, gradients) = Run(new AutogradStep(wide, adapter), batch, adapter, optimizer);
        var (_, plainGradients) = Run(new AutogradStep(narrow, fastAdapter), batch, fastAdapter, fastOptimizer);
        var rounding = Distance(plainGradients, gradients);
        foreach (var plan in new[] { ActivationPlan.Keep, ActivationPlan.Lean, ActivationPlan.Offload })
        {
            using var fast = new FastLlamaStep(narrow, fastAdapter, OnGpu.Value, plan);
            var (fastLoss, fastGradients) = Run(fast, batch, fastAdapter, fastOptimizer);
            fastLoss.ShouldBe(loss, 3e-2 * Math.Abs(loss));
            Distance(fastGradients, gradients).ShouldBeLessThan((1.5 * rounding) + allowance, plan.ToString());
        }
    }

    /// <summary>What stands between a packed base's products differs from family to family, and must not care.</summary>
    [Theory]
    [InlineData("gemma2", Gemma2)]
    [InlineData("gemma3_text", Gemma3)]
    [InlineData("granite", Granite)]
    [InlineData("olmo2", "")]
    [InlineData("cohere", "\"logit_scale\": 0.25,")]
    [InlineData("starcoder2", "")]
    [InlineData("phi", Phi)]
    [InlineData("gpt_neox", NeoX)]
    public void ForwardBackward_ARelativeOverAPackedBase_GivesTheGradientsOfAutogradOverTheDecodedOne(string type, string fields)
    {
        using var scope = NewDisposeScope();
        using var model = RandomLlama.Relative(type, fields, CPU, ScalarType.Float32, quantization: BaseQuantization.Nf4);
        using var adapter = CreateAdapter(model, ModuleSelector.AllLinear);
        using var optimizer = new AdamW(adapter.Trainable, 0.9, 0.999, 1e-8, 0);
        var batch = SftBatch.Of([Row(7, 1), Row(12, 2), Row(1, 3), Row(5, 4)]);

        var (loss, gradients) = Run(new AutogradStep(model, adapter), batch, adapter, optimizer);
        using var fast = new FastLlamaStep(model, adapter, new TensorBlockKernels(), ActivationPlan.Lean);
        var (fastLoss, fastGradients) = Run(fast, batch, adapter, optimizer);

        fastLoss.ShouldBe(loss, 1e-4 * Math.Abs(loss));
        Distance(fastGradients, gradients).ShouldBeLessThan(1e-3);
    }

    [Fact]
    public void AdapterChanged_AfterAnUpdate_TheNextStepSeesIt()
    {
        using var scope = NewDisposeScope();
        using var model = RandomLlama.Create(CPU, ScalarType.Float32);
        using var adapter = CreateAdapter(model, ModuleSelector.AllLinear);
        using var optimizer = new AdamW(adapter.Trainable, 0.9, 0.999, 1e-8, 0);
        var batch = SftBatch.Of([Row(9, 5)]);
        using var fast = new FastLlamaStep(model, adapter, new TensorBlockKernels());
        var (before, _) = Run(fast, batch, adapter, optimizer);

        fast.ForwardBackward(batch, 0.1, null);
        optimizer.Step(1e-2);
        optimizer.ZeroGrad();
        fast.AdapterChanged();

        var (after, _) = Run(fast, batch, adapter, optimizer);
        var (plain, _) = Run(new AutogradStep(model, adapter), batch, adapter, optimizer);
        after.ShouldBeLessThan(before);
        after.ShouldBe(plain, 1e-4 * Math.Abs(plain));
    }

    [Fact]
    public void ForwardBackward_ManySteps_HoldsNoMoreTensors()
    {
        using var model = RandomLlama.Create(CPU, ScalarType.Float32);
        using var adapter = CreateAdapter(model, ModuleSelector.AllLinear);
        using var optimizer = new AdamW(adapter.Trainable, 0.9, 0.999, 1e-8, 0);
        using var fast = new FastLlamaStep(model, adapter, new TensorBlockKernels());
        var batch = SftBatch.Of([Row(9, 6), Row(4, 7)]);
        Step();
        var before = DisposeScopeManager.Statistics.ThreadTotalLiveCount;

        for (var i = 0; i < 10; i++)
        {
            Step();
        }

        DisposeScopeManager.Statistics.ThreadTotalLiveCount.ShouldBe(before);

        void Step()
        {
            using var scope = NewDisposeScope();
            fast.ForwardBackward(batch, 0.1, null);
            optimizer.Step(1e-3);
            optimizer.ZeroGrad();
            fast.AdapterChanged();
        }
    }

    private static Adapter CreateAdapter(PretrainedModel model, ModuleSelector targets)
    {
        var adapter = new LoraConfig { R = 4, LoraAlpha = 12, TargetModules = targets, InitLoraWeights = LoraInit.Random }.CreateAdapter(model);
        adapter.Initialize(3);
        adapter.SetTraining(true);
        return adapter;
    }

    private static (double Loss, Dictionary<string, Tensor> Gradients) Run(ITrainingStep step, SftBatch batch, Adapter adapter, AdamW optimizer)
    {
        var (loss, _) = step.ForwardBackward(batch, 1.0 / batch.Targets.Length, null);
        var gradients = adapter.State.ToDictionary(entry => entry.Key, entry => entry.Weight.Value.grad!.clone());
        optimizer.ZeroGrad();
        return (loss.item<float>(), gradients);
    }

    /// <summary>Length of the difference of all gradients together, in units of their length.</summary>
    private static double Distance(Dictionary<string, Tensor> actual, Dictionary<string, Tensor> expected)
    {
        using var scope = NewDisposeScope();
        double Square(Tensor x) => Math.Pow(x.norm().item<float>(), 2);
        return Math.Sqrt(expected.Sum(entry => Square(actual[entry.Key].Minus(entry.Value))) / expected.Sum(entry => Square(entry.Value)));
    }

    private static float Error(Tensor actual, Tensor expected) =>
        actual.Minus(expected).abs().max().item<float>() / expected.abs().max().item<float>();

    private static TrainingRow Row(int length, int seed)
    {
        var random = new Random(seed);
        var ids = Enumerable.Range(0, length).Select(_ => random.Next(128)).ToArray();
        return new TrainingRow(ids, [.. ids.Select((_, i) => i % 3 != 1)], seed);
    }
}
