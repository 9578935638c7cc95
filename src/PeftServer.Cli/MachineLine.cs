using System.Globalization;
using System.Text;
using PeftServer.Engine.Training;

namespace PeftServer.Cli;

/// <summary>What a step's event says of the machine, for the console: speed, share of the peak, memory.</summary>
internal static class MachineLine
{
    /// <summary>Such as <c>, 17,219 tokens/s, MFU 51.2%, GPU 28.9 GiB (peak 29.4), process 1.2 GiB</c>; nothing for an event without such numbers.</summary>
    public static string Of(TrainingEvent written)
    {
        var line = new StringBuilder();
        void Append(string name, Func<double, string> text)
        {
            if (written.Data?.TryGetValue(name, out var value) is true)
            {
                line.Append(CultureInfo.InvariantCulture, $"{text(value.GetDouble())}");
            }
        }

        Append("tokens_per_second", speed => string.Create(CultureInfo.InvariantCulture, $", {speed:N0} tokens/s"));
        Append("mfu", share => string.Create(CultureInfo.InvariantCulture, $", MFU {100 * share:0.0}%"));
        Append("device_memory_bytes", bytes => $", GPU {Gibibytes(bytes)} GiB");
        Append("device_memory_peak_bytes", bytes => $" (peak {Gibibytes(bytes)})");
        Append("memory_bytes", bytes => $", process {Gibibytes(bytes)} GiB");
        return line.ToString();
    }

    private static string Gibibytes(double bytes) => (bytes / (1L << 30)).ToString("0.00", CultureInfo.InvariantCulture);
}
