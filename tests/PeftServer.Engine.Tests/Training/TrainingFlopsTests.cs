using PeftServer.Engine.Adapters;
using PeftServer.Engine.Adapters.LnTuning;
using PeftServer.Engine.Adapters.Lora;
using PeftServer.Engine.Adapters.PromptTuning;
using PeftServer.Engine.Models;
using PeftServer.Engine.Native;
using PeftServer.Engine.Quantization;
using PeftServer.Engine.Training;

namespace PeftServer.Engine.Tests.Training;

[Collection("what a GPU's memory holds")] // one at a time: the allocator counts for all
public sealed class TrainingFlopsTests
{
    // tiny-llama: hidden 192, 6 heads and 2 for keys of 32, intermediate 512, 8 layers, vocabulary 4096.
    private const double Blocks = 8 * ((192 * 192 * 2) + (2 * 192 * 64) + (3 * 192 * 512));
    private const double Head = 192 * 4096;
    private const double Attention = 8 * 192;

    private static readonly BatchShape Two = new([10, 30], 40);

    private static PretrainedModel Model() => PretrainedModel.Plan(Samples.TinyLlama);

    private static double Of(AdapterConfig config, BatchShape shape)
    {
        var model = Model();
        using var adapter = config.CreateAdapter(model);
        return new TrainingFlops(model, adapter).Of(shape);
    }

    [Fact]
    public void Of_AllWeightsTrain_IsWhatPalmCounts() =>
        Of(new LnTuningConfig { TargetModules = ModuleSelector.Of("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj", "lm_head") }, Two)
            .ShouldBe((40 * 6 * (Blocks + Head)) + (12 * Attention * (100 + 900)), 1);

    [Fact]
    public void Of_Lora_SparesTheGradientsOfFrozenWeights()
    {
        var trained = 8.0 * 8 * ((2 * (192 + 192)) + (2 * (192 + 64)) + (3 * (192 + 512)));

        Of(new LoraConfig { R = 8, TargetModules = ModuleSelector.AllLinear }, Two).ShouldBe((40 * ((4 * (Blocks + Head)) + (6 * trained))) + (12 * Attention * (100 + 900)), 1);
    }

    [Fact]
    public void Of_TokensThatAreNotScored_SpareTheHead()
    {
        var lora = new LoraConfig { R = 8, TargetModules = ModuleSelector.AllLinear };

        (Of(lora, Two) - Of(lora, Two with { Scored = 2 })).ShouldBe(38 * 4 * Head, 1);
    }

    [Fact]
    public void Of_Reference_CostsAPassForward()
    {
        var lora = new LoraConfig { R = 8, TargetModules = ModuleSelector.AllLinear };

        (Of(lora, Two with { FrozenPasses = 1 }) - Of(lora, Two)).ShouldBe((40 * 2 * (Blocks + Head)) + (4 * Attention * (100 + 900)), 1);
    }

    [Fact]
    public void Of_VirtualTokens_GoThroughTheModelToo() =>
        Of(new PromptTuningConfig { NumVirtualTokens = 5 }, Two).ShouldBe((50 * 4 * Blocks) + (40 * 4 * Head) + (12 * Attention * ((15 * 15) + (35 * 35))), 1);

    [Theory]
    [InlineData("NVIDIA H200", ScalarType.BFloat16, BaseQuantization.None, 989.4)]
    [InlineData("NVIDIA H200", ScalarType.BFloat16, BaseQuantization.Fp8, 1978.9)]
    [InlineData("NVIDIA H100 PCIe", ScalarType.BFloat16, BaseQuantization.Nf4, 756.4)]
    [InlineData("NVIDIA H100 80GB HBM3", ScalarType.Float32, BaseQuantization.None, 66.9)]
    [InlineData("NVIDIA A100-SXM4-80GB", ScalarType.BFloat16, BaseQuantization.Fp8, 312)]
    [InlineData("NVIDIA L40S", ScalarType.BFloat16, BaseQuantization.None, 362.1)]
    [InlineData("NVIDIA GeForce RTX 4090", ScalarType.BFloat16, BaseQuantization.None, 165.2)]
    public void PeakOf_KnownGpu_IsItsDataSheets(string name, ScalarType dtype, BaseQuantization quantization, double teraflops) =>
        PeakFlops.Of(name, dtype, quantization)!.Value.ShouldBe(teraflops * 1e12, 1e6);

    [Fact]
    public void PeakOf_UnknownGpu_IsNotKnown() => PeakFlops.Of("GeForce 256", ScalarType.Float32).ShouldBeNull();

    [Theory]
    [InlineData("NVIDIA RTX A4000")] // no A40
    [InlineData("NVIDIA RTX A1000")] // no A100
    [InlineData("NVIDIA GeForce RTX 4090 Laptop GPU")]
    [InlineData("NVIDIA A100-SXM4-80GB MIG 1g.10gb")]
    [InlineData("Tesla T4")] // multiplies float16, not bfloat16
    [InlineData("Tesla V100-SXM2-16GB")]
    public void PeakOf_OneThatANameInTheTableOnlyBegins_IsNotKnown(string name) => PeakFlops.Of(name, ScalarType.BFloat16).ShouldBeNull();

    [Theory]
    [InlineData(null)]
    [InlineData(0.5)]
    public void Run_Step_TellsMemoryAndItsShareOfAGivenPeak(double? peak)
    {
        using var run = new TrainingRun(["""{"prompt": "Say ", "completion": "hello to all of them"}"""], change: a => a with { MaxSteps = 2, ReportTo = ReportTarget.Tensorboard });
        using var measured = new TrainingRun(["""{"prompt": "Say ", "completion": "hello to all of them"}"""]) { Spec = run.Spec with { PeakTflops = peak } };

        measured.Run().ShouldBe(TrainingOutcome.Succeeded);

        measured.Metrics("memory_bytes").ShouldAllBe(bytes => bytes > 50e6);
        measured.Metrics("memory_peak_bytes").Zip(measured.Metrics("memory_bytes")).ShouldAllBe(pair => pair.First >= pair.Second * 0.99);
        measured.Metrics("mfu").Count().ShouldBe(peak is null ? 0 : 2);
        if (peak is { } teraflops)
        {
            // What the share says is what the formula says of the tokens and their time.
            var model = Model();
            using var adapter = run.Spec.Peft.CreateAdapter(model);
            var tokens = (int)measured.Metrics("tokens").First();
            var seconds = tokens / measured.Metrics("tokens_per_second").First();
            var scored = measured.Metrics("mfu").First() * teraflops * 1e12 * seconds;
            scored.ShouldBeInRange(new TrainingFlops(model, adapter).Of(new([tokens], 1)), new TrainingFlops(model, adapter).Of(new([tokens], tokens)));
        }
    }

    [Fact]
    public void MemoryOf_Gpu_FollowsWhatIsAllocated()
    {
        Assert.SkipUnless(TorchLoader.TorchCuda != 0 && cuda.is_available(), "This host has no GPU that libtorch can use.");
        var device = Devices.Parse("cuda:0");
        using var first = zeros(1, device: device);
        const long slack = 64 << 20; // other tests have a little on the same GPU
        var before = CudaAllocator.Read(device.index).ShouldNotBeNull();

        using (empty(256 << 20, dtype: ScalarType.Byte, device: device))
        {
            var during = CudaAllocator.Read(device.index)!.Value;
            (during.Allocated - before.Allocated).ShouldBeInRange((256 << 20) - slack, (256 << 20) + slack);
            during.Reserved.ShouldBeGreaterThanOrEqualTo(during.Allocated);
        }

        var after = CudaAllocator.Read(device.index)!.Value;
        after.Allocated.ShouldBeInRange(before.Allocated - slack, before.Allocated + slack);
        after.AllocatedPeak.ShouldBeGreaterThanOrEqualTo(before.Allocated + (256 << 20));
        CudaAllocator.RanOut().ShouldBeFalse();
        Should.Throw<Exception>(() => empty(1L << 50, dtype: ScalarType.Byte, device: device));
        CudaAllocator.RanOut().ShouldBeTrue();
        CudaAllocator.RanOut().ShouldBeFalse();
    }
}
