using System.Text.Json;
using PeftServer.Engine.Adapters;
using PeftServer.Engine.Adapters.Poly;
using PeftServer.Engine.Adapters.Pvera;

namespace PeftServer.Goldens.Tests;

/// <summary>
/// What is drawn in training. Poly draws its mixes, PVeRA its noise, from PEFT's one generator: at each step it stands behind the draws of the
/// adapter's weights and of the steps before. Cases of dropouts begin each step with a seed of its own.
/// </summary>
internal sealed class PeftDraws(Golden golden)
{
    private int _steps;

    /// <summary>The generator for the next step of training, which the case owns; null for what draws nothing.</summary>
    public Generator? Next(IReadOnlyList<Adapter> adapters)
    {
        if (golden.Meta.TryGetProperty("step_seed", out var seed) && seed.ValueKind is JsonValueKind.Number)
        {
            return golden.Keep(new Generator(seed.GetUInt64() + (ulong)_steps++));
        }

        if (adapters is not [{ Config: PolyConfig or PveraConfig } adapter])
        {
            return null;
        }

        var draws = golden.Keep(new Generator(golden.Meta.GetProperty("seed").GetUInt64()));
        var (rows, width) = (golden["input_ids"].size(0), golden["input_ids"].size(1));
        if (adapter.Config is PveraConfig { R: var rank })
        {
            var modules = adapter.State.Count(entry => entry.Key.EndsWith("pvera_lambda_d", StringComparison.Ordinal));
            Repeat(modules, () => randn(2 * rank, generator: draws)); // PEFT draws each lambda_d before it fills it with its start
            Repeat(_steps * modules, () => randn([rows, width, rank], generator: draws));
        }
        else
        {
            adapter.State.Where(entry => !entry.Key.EndsWith("poly_lora_B", StringComparison.Ordinal)).ToList().ForEach(entry => rand(entry.Weight.ElementCount, generator: draws));
            Repeat(_steps, () => adapter.Parts.ToList().ForEach(entry => rand(rows * entry.Part.State.First().Weight.Shape[1], generator: draws)));
        }

        _steps++;
        return draws;
    }

    private static void Repeat(int times, Action draw)
    {
        for (var i = 0; i < times; i++)
        {
            draw();
        }
    }
}
