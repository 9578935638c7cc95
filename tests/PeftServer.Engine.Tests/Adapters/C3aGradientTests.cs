using System.Text.Json.Nodes;
using PeftServer.Engine.Adapters;
using PeftServer.Engine.Adapters.C3a;
using PeftServer.Engine.Models;
using PeftServer.Engine.Native;

namespace PeftServer.Engine.Tests.Adapters;

/// <summary>
/// C3A's gradients against finite differences, and against the formulas of PEFT's <c>BlockCircularConvolution</c>
/// (peft/tuners/c3a/utils.py): its forward pass and its gradient of the kernels are right, its gradient of the input is not.
/// </summary>
public sealed class C3aGradientTests : IDisposable
{
    private const int Side = 8;
    private const double Step = 1e-6;

    private readonly DisposeScope _scope = NewDisposeScope();
    private readonly Generator _draws = new(3);
    private readonly CausalLanguageModel _model = RandomLlama.Create(CPU, ScalarType.Float32);
    private readonly Projection _site;
    private readonly Tensor _x;
    private readonly Tensor _weights; // of the outputs in the loss

    public C3aGradientTests()
    {
        _site = _model.Sites().OfType<Projection>().First(site => site.Path.EndsWith("v_proj", StringComparison.Ordinal)); // 64 to 32
        _x = randn([3, _site.InFeatures], ScalarType.Float64, generator: _draws);
        _weights = randn([3, _site.OutFeatures], ScalarType.Float64, generator: _draws);
    }

    public void Dispose()
    {
        _model.Dispose();
        _draws.Dispose();
        _scope.Dispose();
    }

    [Fact]
    public void Forward_AnyKernel_IsPeftsFormula()
    {
        using var adapter = Create(C3aGradient.Exact);

        Distance(Delta(adapter, _x), PeftsForward(_x, Kernel(adapter))).ShouldBeLessThan(1e-12);
    }

    [Fact]
    public void Backward_Exact_IsWhatFiniteDifferencesGive()
    {
        using var adapter = Create(C3aGradient.Exact);

        var (input, kernel) = Gradients(adapter);

        Distance(input, Differences(adapter, _x)).ShouldBeLessThan(1e-8);
        Distance(kernel, Differences(adapter, Kernel(adapter))).ShouldBeLessThan(1e-8);
    }

    [Fact]
    public void Backward_PeftsFormulas_AreRightForTheKernelAndWrongForTheInput()
    {
        using var adapter = Create(C3aGradient.Exact);

        var (input, kernel) = PeftsBackward(_weights, _x, Kernel(adapter));

        Distance(kernel, Differences(adapter, Kernel(adapter))).ShouldBeLessThan(1e-8);
        var exact = Differences(adapter, _x);
        Distance(input, exact).ShouldBeGreaterThan(0.1 * exact.abs().max().item<double>());
        Distance(PeftsBackward(Backwards(_weights), _x, Kernel(adapter)).Input, exact).ShouldBeLessThan(1e-8); // it reads the gradient backwards
    }

    [Fact]
    public void Backward_Peft_IsPeftsFormulaOverAnUnchangedForward()
    {
        using var adapter = Create(C3aGradient.Peft);

        var (input, kernel) = Gradients(adapter);
        var theirs = PeftsBackward(_weights, _x, Kernel(adapter));

        Distance(input, theirs.Input).ShouldBeLessThan(1e-12);
        Distance(kernel, theirs.Kernel).ShouldBeLessThan(1e-12);
        Distance(Delta(adapter, _x.clone().requires_grad_(true)), PeftsForward(_x, Kernel(adapter))).ShouldBeLessThan(1e-12);
    }

    [Fact]
    public void ConfigText_PeftsGradient_HoldsNoFieldThatPeftLacks()
    {
        var config = System.Text.Json.JsonSerializer.Deserialize<AdapterConfig>("""{ "peft_type": "C3A", "block_size": 8, "gradient": "peft" }""", PeftJson.Options)!;

        ((C3aConfig)config).Gradient.ShouldBe(C3aGradient.Peft);
        JsonNode.Parse(AdapterFile.ConfigText(config, "base"))!.AsObject().ContainsKey("gradient").ShouldBeFalse();
        System.Text.Json.JsonSerializer.Serialize(config, PeftJson.Options).ShouldContain("\"gradient\":\"peft\""); // a job keeps it
    }

    private Adapter Create(C3aGradient gradient)
    {
        var adapter = new C3aConfig { BlockSize = Side, Gradient = gradient, TargetModules = ModuleSelector.Of("v_proj"), LayersToTransform = new([0], false) }.CreateAdapter(_model);
        adapter.Initialize(4);
        foreach (var weight in adapter.Trainable)
        {
            weight.Set(weight.Value.to(ScalarType.Float64));
        }

        return adapter;
    }

    private static Tensor Kernel(Adapter adapter) => adapter.Trainable.Single().Value;

    private Tensor Delta(Adapter adapter, Tensor x)
    {
        using var batch = ForwardBatch.Packed([[3, 5, 7]], [adapter], CPU);
        return ((AdditiveSiteAdapter)adapter.Parts.Single().Part).Delta(x, new SiteCall(_site, batch, batch.Runs[0], [], 0));
    }

    private (Tensor Input, Tensor Kernel) Gradients(Adapter adapter)
    {
        adapter.SetTraining(true);
        var x = _x.clone().requires_grad_(true);
        Delta(adapter, x).mul(_weights).sum().backward();
        adapter.SetTraining(false);
        return (x.grad!, Kernel(adapter).grad!);
    }

    /// <summary>Central differences of the loss Σ weights · delta in each number of <paramref name="at"/>.</summary>
    private Tensor Differences(Adapter adapter, Tensor at)
    {
        using var frozen = no_grad();
        var slopes = zeros_like(at);
        var (numbers, results) = (at.view(-1), slopes.view(-1));
        for (var i = 0; i < numbers.size(0); i++)
        {
            using var scope = NewDisposeScope();
            var number = numbers.narrow(0, i, 1);
            number.Add(ones_like(number), Step);
            var above = Delta(adapter, _x).mul(_weights).sum();
            number.Add(ones_like(number), -2 * Step);
            var below = Delta(adapter, _x).mul(_weights).sum();
            number.Add(ones_like(number), Step);
            results.narrow(0, i, 1).copy_(above.Minus(below).Times(1 / (2 * Step)));
        }

        return slopes;
    }

    private static Tensor PeftsForward(Tensor x, Tensor kernel) =>
        fft.fft_(einsum("...nb,mnb->...mb", fft.ifft(Split(x)), fft.fft_(kernel))).real.flatten(1).Times(1.0 / x.size(1));

    /// <summary>PEFT's backward pass; it divides by the width outside of it, so the gradient comes divided.</summary>
    private static (Tensor Input, Tensor Kernel) PeftsBackward(Tensor gradient, Tensor x, Tensor kernel)
    {
        var spectrum = fft.fft_(Split(gradient.Times(1.0 / x.size(1))));
        return (
            fft.fft_(einsum("...mb,mnb->...nb", spectrum, fft.ifft(kernel))).real.flatten(1),
            fft.fft_(einsum("...mb,...nb->mnb", spectrum, fft.ifft(Split(x)))).real);
    }

    /// <summary>Each block of the last dimension with its numbers counted the other way around the circle, the first where it was.</summary>
    private static Tensor Backwards(Tensor x) => Split(x).flip(-1).roll(1, -1).flatten(1);

    private static Tensor Split(Tensor x) => x.view(x.size(0), -1, Side);

    private static double Distance(Tensor a, Tensor b) => a.Minus(b).abs().max().item<double>();
}
