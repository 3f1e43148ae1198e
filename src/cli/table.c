/*
 * table.c - tables for people: columns as wide as their contents.
 *
 * On a terminal a table is no wider than the terminal: its widest columns are cut, with an ellipsis, until it fits.
 * Elsewhere nothing is cut; a cell much longer than most only shifts the rest of its own line.
 */
#include "cli/cli.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define TABLE_WIDE     40u /* no column is padded beyond this, unless the terminal has room */
#define TABLE_NARROW   8u  /* no column is cut to less */
#define TABLE_GAP      1u
#define TABLE_COLS_MAX 16u

struct cli_table {
    const char *const *names;
    size_t columns;
    char **cells; /* of all rows, end to end; NULL for none */
    size_t rows, room;
    size_t next;
    size_t widths[TABLE_COLS_MAX];
};

static bool table_is_right(const cli_table *table, size_t c)
{
    return table->names[c][0] == '>';
}

cli_table *cli_table_new(const char *const *columns, size_t n)
{
    cli_table *table = n <= TABLE_COLS_MAX ? calloc(1, sizeof(*table)) : NULL;

    if (table != NULL) {
        table->names = columns;
        table->columns = n;
    }
    return table;
}

void cli_table_row(cli_table *table)
{
    if (table->rows == table->room) {
        size_t room = table->room ? 2 * table->room : 64;
        char **cells = reallocarray(table->cells, room * table->columns, sizeof(*cells));
        if (cells == NULL) {
            table->next = table->columns; /* its cells are dropped */
            return;
        }
        table->cells = cells;
        table->room = room;
    }
    memset(&table->cells[table->rows * table->columns], 0, table->columns * sizeof(char *));
    table->rows++;
    table->next = 0;
}

void cli_table_cell(cli_table *table, const char *format, ...)
{
    va_list args;
    char *text = NULL;

    va_start(args, format);
    if (vasprintf(&text, format, args) < 0) {
        text = NULL;
    }
    va_end(args);
    if (text != NULL && table->rows > 0 && table->next < table->columns) {
        table->cells[(table->rows - 1) * table->columns + table->next++] = cli_text(text, false);
    }
    free(text);
}

static size_t table_total(const cli_table *table)
{
    size_t total = TABLE_GAP * (table->columns - 1);

    for (size_t c = 0; c < table->columns; c++) {
        total += table->widths[c];
    }
    return total;
}

/* Takes from the widest column of text until the table fits, or nothing more can be cut. */
static void table_squeeze(cli_table *table, size_t terminal)
{
    size_t total = table_total(table);

    while (total > terminal) {
        size_t widest = table->columns;
        for (size_t c = 0; c < table->columns; c++) {
            size_t head = cli_cells(table->names[c]);
            bool may = !table_is_right(table, c) && table->widths[c] > TABLE_NARROW && table->widths[c] > head;
            if (may && (widest == table->columns || table->widths[c] > table->widths[widest])) {
                widest = c;
            }
        }
        if (widest == table->columns) {
            return;
        }
        table->widths[widest]--;
        total--;
    }
}

static void table_measure(cli_table *table, size_t terminal)
{
    for (size_t c = 0; c < table->columns; c++) {
        size_t width = 0;
        for (size_t r = 0; r < table->rows; r++) {
            const char *cell = table->cells[r * table->columns + c];
            size_t cells = cell != NULL ? cli_cells(cell) : 0;
            bool counts = terminal > 0 || cells <= TABLE_WIDE;
            width = counts && cells > width ? cells : width;
        }
        size_t head = cli_cells(table->names[c] + table_is_right(table, c));
        table->widths[c] = width > head ? width : head;
    }
    if (terminal > 0) {
        table_squeeze(table, terminal);
    }
}

static void table_line(const cli_table *table, const char *const *cells)
{
    size_t last = table->columns;

    while (last > 1 && (cells[last - 1] == NULL || !*cells[last - 1])) {
        last--; /* no blanks at the end of a line */
    }
    for (size_t c = 0; c < last; c++) {
        const char *text = cells[c] != NULL ? cells[c] : "";
        bool right = table_is_right(table, c);
        cli_pad(text, right || c + 1 < last ? table->widths[c] : 0, right);
        if (c + 1 < last) {
            putchar(' ');
        }
    }
    putchar('\n');
}

void cli_table_print(cli_table *table)
{
    size_t terminal = cli_terminal();
    const char *heads[TABLE_COLS_MAX] = {0};

    for (size_t c = 0; c < table->columns; c++) {
        heads[c] = table->names[c] + table_is_right(table, c);
    }
    table_measure(table, terminal);
    if (table->rows > 0) {
        table_line(table, heads);
    }
    for (size_t r = 0; r < table->rows; r++) {
        char **cells = &table->cells[r * table->columns];
        for (size_t c = 0; terminal > 0 && c < table->columns; c++) {
            if (cells[c] != NULL) {
                cli_shorten(cells[c], table->widths[c]);
            }
        }
        table_line(table, (const char *const *)cells);
    }
    for (size_t i = 0; i < table->rows * table->columns; i++) {
        free(table->cells[i]);
    }
    free(table->cells);
    free(table);
}
